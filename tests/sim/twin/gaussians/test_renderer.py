"""Drawing Gaussians, against closed forms, autograd and MuJoCo's pictures."""

import math

import numpy as np
import pytest
import torch

from robot_sim.engine import mujoco
from robot_sim.rendering import FrameRenderer
from robot_sim.twin.gaussians.camera import Pinhole, looking_at
from robot_sim.twin.gaussians.model_view import CellRenderer
from robot_sim.twin.gaussians.moving_picture import Solid, draw_moving
from robot_sim.twin.gaussians.renderer import (
    BLUR,
    RendererError,
    Splats,
    background_tensor,
    render,
    rotation_matrices,
)
from robot_sim.twin.gaussians.renderers import build_renderer

AHEAD = Pinhole(
    width=16, height=16, fx=20.0, fy=24.0, cx=8.0, cy=7.5, rotation=np.eye(3), translation=np.zeros(3)
)
GREY = torch.full((3,), 0.2, dtype=torch.float64)


def splats(means, sigma=0.05, colours=None, opacities=None, requires_grad=False):
    """Round Gaussians in front of the camera."""
    n = len(means)
    return Splats(
        torch.tensor(means, dtype=torch.float64, requires_grad=requires_grad),
        torch.eye(3, dtype=torch.float64).expand(n, 3, 3),
        torch.full((n, 3), sigma, dtype=torch.float64),
        torch.tensor(colours if colours is not None else [[1.0, 0.5, 0.0]] * n, dtype=torch.float64),
        torch.tensor(opacities if opacities is not None else [0.8] * n, dtype=torch.float64),
    )


def test_one_gaussian_in_closed_form():
    """A round Gaussian on the axis is one of variance (f sigma / z)^2 + blur, as much of it as before."""
    image = render(splats([[0.0, 0.0, 1.0]]), AHEAD, GREY).image
    y, x = np.mgrid[0:16, 0:16] + 0.5
    variances = (20 * 0.05) ** 2 + BLUR, (24 * 0.05) ** 2 + BLUR
    share = math.sqrt((variances[0] - BLUR) * (variances[1] - BLUR) / (variances[0] * variances[1]))
    alpha = 0.8 * share * np.exp(-0.5 * ((x - 8) ** 2 / variances[0] + (y - 7.5) ** 2 / variances[1]))
    alpha = np.where(alpha < 1 / 255, 0, alpha)[..., None]
    expected = alpha * [1.0, 0.5, 0.0] + (1 - alpha) * 0.2
    assert np.abs(image.numpy() - expected).max() < 1e-12


def test_gradient_of_one_gaussian_in_closed_form():
    """On the axis, moving it sideways changes a pixel by alpha (c - b) (f / z) (p - m) / variance."""
    body = splats([[0.0, 0.0, 1.0]], requires_grad=True)
    render(body, AHEAD, GREY).image[9, 10, 0].backward()  # pixel centre (10.5, 9.5)
    variances = (20 * 0.05) ** 2 + BLUR, (24 * 0.05) ** 2 + BLUR
    share = math.sqrt((variances[0] - BLUR) * (variances[1] - BLUR) / (variances[0] * variances[1]))
    alpha = 0.8 * share * math.exp(-0.5 * (2.5**2 / variances[0] + 2.0**2 / variances[1]))
    expected = [alpha * 0.8 * 20 * 2.5 / variances[0], alpha * 0.8 * 24 * 2.0 / variances[1]]
    assert body.means.grad is not None
    assert body.means.grad[0, :2].tolist() == pytest.approx(expected, rel=1e-9)


def test_all_gradients_and_their_gradients_are_right():
    """First and second derivatives to every parameter agree with finite differences, several Gaussians overlapping."""
    generator = torch.Generator().manual_seed(0)

    def drawn(value: float, spread: float, *shape: int) -> torch.Tensor:
        return (
            value + spread * torch.rand(*shape, generator=generator, dtype=torch.float64)
        ).requires_grad_()

    camera = Pinhole(
        width=3, height=2, fx=5, fy=5, cx=1.5, cy=1, rotation=np.eye(3), translation=np.array([0, 0, 1.0])
    )
    means, quaternions, scales = drawn(-0.1, 0.2, 2, 3), drawn(0.2, 1.0, 2, 4), drawn(0.15, 0.1, 2, 3)
    colours, opacities = drawn(0.0, 1.0, 2, 3), drawn(0.4, 0.4, 2)

    def picture(m, q, s, c, o):
        return render(Splats(m, rotation_matrices(q), s, c, o), camera, GREY).image

    assert torch.autograd.gradcheck(picture, (means, quaternions, scales, colours, opacities), atol=1e-7)

    def moved(m, o):
        return picture(m, quaternions.detach(), scales.detach(), colours.detach(), o)

    assert torch.autograd.gradgradcheck(moved, (means, opacities), atol=1e-6)


def test_order_of_gaussians_does_not_matter(block_scene):
    """They are sorted by depth: any order in memory gives the same picture."""
    camera = block_scene.pinholes["camera0"]
    body = Splats.of_body(block_scene.body, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    # No two at the same depth: between such, any order is right.
    body.means.add_(1e-6 * torch.rand(len(body), 3, generator=generator, dtype=torch.float64))
    order = torch.randperm(len(body), generator=generator)
    shuffled = Splats(
        *(getattr(body, n)[order] for n in ("means", "rotations", "scales", "colours", "opacities"))
    )
    first, second = (render(s, camera, GREY).image for s in (body, shuffled))
    assert (first - second).abs().max() < 1e-12


def test_the_nearer_gaussian_hides_the_farther():
    """A dense red Gaussian in front hides a blue one; from behind the camera nothing is drawn."""
    means = [[0, 0, 2.0], [0, 0, 1.0], [0, 0, -1.0]]
    colours = [[0, 0, 1.0], [1.0, 0, 0], [0, 1.0, 0]]
    middle = render(splats(means, 0.3, colours, [1.0, 1.0, 1.0]), AHEAD, GREY).image[7, 8]
    assert middle[0] > 0.95
    assert middle[1:].max() < 0.02


def test_a_crop_draws_the_same_pixels(block_scene):
    """Tiles and crops change nothing: a crop is exactly the crop of the whole picture."""
    camera = block_scene.pinholes["camera1"]
    body = Splats.of_body(block_scene.body, dtype=torch.float64)
    whole = render(body, camera, GREY).image
    part = render(body, camera.cropped(13, 21, 53, 60), GREY).image
    assert (whole[21:60, 13:53] - part).abs().max() < 1e-12


def test_silhouette_and_colour_agree_with_mujoco(block_scene):
    """The sampled block covers the pixels that MuJoCo's block covers, in its colours, from every side."""
    body = Splats.of_body(block_scene.body).moved(
        torch.tensor(block_scene.rotation).float(), torch.tensor(block_scene.position).float()
    )
    for name, camera in block_scene.pinholes.items():
        drawn = render(body, camera, background_tensor(block_scene.empty[name], body.means))
        mask, reference = drawn.alpha.numpy() > 0.5, block_scene.masks[name]
        assert (mask & reference).sum() / (mask | reference).sum() > 0.85
        difference = np.abs(drawn.image.numpy() - block_scene.pictures[name] / 255.0)[mask & reference]
        assert difference.mean() < 0.06


def test_compiled_picture_and_derivative_agree_with_autograd(block_scene):
    """The compiled drawing equals torch's, and its derivative along six motions equals forward-mode autograd's."""
    camera = block_scene.pinholes["camera2"].cropped(15, 10, 60, 55)
    background = np.random.default_rng(0).random((45, 45, 3))
    solid = Solid.of_body(block_scene.body)
    moving = draw_moving(solid, block_scene.rotation, block_scene.position, np.eye(6), camera, background)
    local = Splats.of_body(block_scene.body, dtype=torch.float64)
    rotation, position = torch.tensor(block_scene.rotation), torch.tensor(block_scene.position)

    def picture(twist):
        x, y, z = twist[3:]
        nothing = torch.zeros_like(x)
        spin = torch.stack([nothing, -z, y, z, nothing, -x, -y, x, nothing]).reshape(3, 3)
        moved = local.moved(torch.matrix_exp(spin) @ rotation, position + twist[:3])
        return render(moved, camera, torch.tensor(background)).image

    still = torch.zeros(6, dtype=torch.float64)
    assert np.abs(moving.image - picture(still).numpy()).max() < 1e-6
    for k, direction in enumerate(torch.eye(6, dtype=torch.float64)):
        slope = torch.func.jvp(picture, (still,), (direction,))[1]
        assert (
            np.abs(slope.numpy() - moving.jacobian[..., k]).max()
            < 1e-5 * np.abs(moving.jacobian[..., k]).max()
        )


def test_cell_cameras_are_mujocos(block_scene):
    """A camera of a cell file draws what the same camera in the model draws; an off-centre one, a shifted picture."""
    camera = looking_at((0.3, 0.1, 0.4), (0, 0, 0), fov=40, width=60, height=48)
    model, data = block_scene.model, block_scene.data
    free = mujoco.MjvCamera()
    free.lookat[:], free.distance = (0, 0, 0), float(np.linalg.norm(camera.position))
    free.azimuth = math.degrees(math.atan2(-0.1, -0.3))
    free.elevation = -math.degrees(math.asin(0.4 / free.distance))
    before = model.vis.global_.fovy
    model.vis.global_.fovy = 40
    reference = mujoco.Renderer(model, height=48, width=60)
    try:
        reference.update_scene(data, camera=free)
        expected = reference.render().astype(int)
    finally:
        reference.close()
        model.vis.global_.fovy = before
    shifted = type(camera)(**{**camera.__dict__, "cx": camera.cx + 5, "cy": camera.cy - 3})
    ours = CellRenderer(model, {"same": camera, "shifted": shifted})
    try:
        same, moved = ours.picture(data, "same").astype(int), ours.picture(data, "shifted").astype(int)
    finally:
        ours.close()
    assert np.abs(same - expected).mean() < 1.0
    assert np.abs(moved[:45, 5:] - same[3:, :55]).mean() < 1.0
    assert isinstance(ours, FrameRenderer)


@pytest.mark.parametrize(("name", "message"), [("gsplat", "needs"), ("torhc", "did you mean 'torch'")])
def test_missing_renderers_are_refused(name, message, monkeypatch):
    """Gsplat without a GPU, and a name that does not exist, are refused: nothing else is taken instead."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RendererError, match=message):
        build_renderer(name)
    assert build_renderer("torch") is render
