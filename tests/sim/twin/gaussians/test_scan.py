"""Gaussians from posed pictures: how a view looks that the fit has not seen, and what is refused."""

import numpy as np
import pytest
import torch

from robot_sim.twin.gaussians.camera import Pinhole, looking_at
from robot_sim.twin.gaussians.model_view import CellRenderer, movable_and_arm, without_bodies
from robot_sim.twin.gaussians.renderer import Splats, background_tensor, render
from robot_sim.twin.gaussians.scan import ScanConfig, ScanError, ScanView, psnr, scan_body

LOW, HIGH = np.array([-0.08, -0.1, 0.0]), np.array([0.1, 0.08, 0.05])


@pytest.fixture(scope="module")
def scan(block_scene):
    """Eight small views around the block, with masks and empty pictures; the last one is held out."""
    cameras = {
        f"{i}": looking_at(
            (0.4 * np.cos(a), 0.4 * np.sin(a), 0.35), (0, 0, 0.01), fov=24, width=40, height=36
        )
        for i, a in enumerate(np.arange(8) * 2.4)
    }
    model, data = block_scene.model, block_scene.data
    renderer = CellRenderer(model, cameras)
    views = []
    for name, camera in cameras.items():
        mask = renderer.bodies(data, name) == model.body("block").id
        empty = without_bodies(model, data, renderer, name, movable_and_arm(model)) / 255.0
        views.append(ScanView(Pinhole.from_cell(camera), renderer.picture(data, name) / 255.0, mask, empty))
    renderer.close()
    return views


@pytest.mark.parametrize("known", ["mask", "empty"])
def test_a_held_out_view_looks_right(scan, block_scene, known):
    """Fitted to seven small views by masks or by empty pictures, the eighth comes out, in the body's own frame."""
    views = [
        ScanView(
            v.camera, v.picture, v.mask if known == "mask" else None, v.empty if known == "empty" else None
        )
        for v in scan
    ]
    body = scan_body(
        views[:-1], low=LOW, high=HIGH, position=block_scene.position, rotation=block_scene.rotation,
        config=ScanConfig(count=100, steps=40, rate=0.08),
    )  # fmt: skip
    splats = Splats.of_body(body).moved(
        torch.tensor(block_scene.rotation).float(), torch.tensor(block_scene.position).float()
    )
    last = scan[-1]
    assert last.mask is not None
    assert last.empty is not None
    drawn = render(splats, last.camera, background_tensor(last.empty, splats.means)).image.numpy()
    nothing = psnr(last.empty, last.picture, last.mask)
    assert psnr(drawn, last.picture) > 22
    assert psnr(drawn, last.picture, last.mask) > nothing + 6


def test_bad_scans_are_refused(scan):
    """Wrong shapes, views without any hint of the body, an empty box and contradicting masks are told in one line."""
    view = scan[0]
    with pytest.raises(ScanError, match="mask has shape"):
        ScanView(view.camera, view.picture, np.zeros((3, 3), dtype=bool))
    with pytest.raises(ScanError, match="neither a mask"):
        ScanView(view.camera, view.picture)
    with pytest.raises(ScanError, match="low < high"):
        scan_body(scan, low=HIGH, high=LOW)
    with pytest.raises(ScanError, match="agree on no part"):
        scan_body([ScanView(v.camera, v.picture, np.zeros_like(v.mask)) for v in scan], low=LOW, high=HIGH)


def test_psnr_in_closed_form():
    """An error of 0.1 everywhere is 20 dB; equal pictures have no noise."""
    picture = np.full((4, 4, 3), 0.5)
    assert psnr(picture + 0.1, picture) == pytest.approx(20)
    assert psnr(picture, picture) == np.inf
