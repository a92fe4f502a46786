"""Poses from pictures: where the fit ends, what it says of its certainty, and when it says that it does not know."""

import numpy as np
import pytest

from robot_sim.twin.gaussians.image_poses import exposure, widened
from robot_sim.twin.gaussians.moving_picture import Solid, draw_moving
from robot_sim.twin.gaussians.photometric import FREE, PLANAR, FitConfig, View, fit_pose
from robot_sim.twin.gaussians.search import search_pose
from robot_sim.twin.geometry import rotation_between, turned

LONG = FitConfig(iterations=10)


def drawn_views(scene, noise=0.0, random=None):
    """What the cameras would see of the Gaussians themselves."""
    solid = Solid.of_body(scene.body)
    views = []
    for name, camera in scene.pinholes.items():
        empty = scene.empty[name] / 255.0
        picture = draw_moving(solid, scene.rotation, scene.position, np.empty((0, 6)), camera, empty).image
        if random is not None:
            picture = picture + noise * random.standard_normal(picture.shape)
        views.append(View(camera, picture, empty, np.ones(picture.shape[:2], dtype=bool)))
    return solid, views


def mujoco_views(scene):
    """What MuJoCo's cameras see."""
    everywhere = np.ones((64, 72), dtype=bool)
    views = [
        View(c, scene.pictures[n] / 255.0, scene.empty[n] / 255.0, everywhere)
        for n, c in scene.pinholes.items()
    ]
    return Solid.of_body(scene.body), views


def error_of(fit, scene):
    """Distance [m] and angle [rad] to the truth."""
    assert fit is not None
    return np.linalg.norm(fit.position - scene.position), np.linalg.norm(
        rotation_between(fit.quaternion, scene.quaternion)
    )


def test_a_planar_body_is_found_exactly_in_its_own_pictures(block_scene):
    """From 12 mm and 9 degrees away, pictures of the same Gaussians lead back to the pose, to a tenth of a pixel."""
    solid, views = drawn_views(block_scene)
    start = (
        block_scene.position + np.array([0.01, -0.007, 0]),
        turned(block_scene.quaternion, np.array([0, 0, 0.16])),
    )
    place, turn = error_of(fit_pose(solid, *start, views, motions=PLANAR, config=LONG), block_scene)
    assert place < 2e-4
    assert turn < 0.004


def test_all_six_numbers_are_found(block_scene):
    """With three cameras a free body's height, roll and pitch are found too."""
    solid, views = drawn_views(block_scene)
    start = (
        block_scene.position + np.array([0.004, 0.003, 0.004]),
        turned(block_scene.quaternion, np.array([0.08, -0.06, 0.1])),
    )
    place, turn = error_of(
        fit_pose(solid, *start, views, motions=FREE, config=FitConfig(iterations=20)), block_scene
    )
    assert place < 5e-4
    assert turn < 0.01


def test_the_body_is_found_in_mujocos_pictures(block_scene):
    """The fit holds for pictures drawn by something else: within half a pixel."""
    solid, views = mujoco_views(block_scene)
    start = (
        block_scene.position + np.array([-0.006, 0.008, 0]),
        turned(block_scene.quaternion, np.array([0, 0, -0.12])),
    )
    place, turn = error_of(fit_pose(solid, *start, views, motions=PLANAR, config=LONG), block_scene)
    assert place < 0.0015
    assert turn < 0.03


def test_covariance_is_as_large_as_the_errors(block_scene, random):
    """Under pixel noise alone, errors over the stated standard deviation (kappa 1, no floor) are about 1."""
    config = FitConfig(iterations=8, inflation=1.0, floor_position=1e-7, floor_angle=1e-7, enough=1e-4)
    ratios = []
    for _ in range(6):
        solid, views = drawn_views(block_scene, 0.05, random)
        fit = fit_pose(
            solid, block_scene.position, block_scene.quaternion, views, motions=PLANAR, config=config
        )
        assert fit is not None
        error = np.append(
            fit.position - block_scene.position, rotation_between(block_scene.quaternion, fit.quaternion)
        )
        ratios.append(error[[0, 1, 5]] / np.sqrt(np.diag(fit.covariance))[[0, 1, 5]])
    assert 0.5 < np.sqrt(np.mean(np.square(ratios))) < 1.6


def test_a_hidden_half_changes_little(block_scene):
    """Pixels that something hides are left out, whatever they show; more hidden means less certain."""
    solid, views = drawn_views(block_scene)
    half = []
    for view in views:
        valid, observed = view.valid.copy(), view.observed.copy()
        valid[:, :36], observed[:, :36] = False, 1.0
        half.append(View(view.camera, observed, view.background, valid))
    start = block_scene.position + np.array([0.004, 0.003, 0]), block_scene.quaternion
    hidden = fit_pose(solid, *start, half, motions=PLANAR, config=FitConfig(iterations=10, min_visible=0.1))
    place, turn = error_of(hidden, block_scene)
    assert place < 1e-3
    assert turn < 0.02
    assert hidden is not None
    assert hidden.visible < 0.8


@pytest.mark.parametrize("case", ["gone", "hidden", "out of sight"])
def test_a_body_that_is_not_to_be_seen_has_no_pose(block_scene, case):
    """No pose rather than a wrong one: the body is gone, hidden altogether, or in no camera's picture."""
    solid, views = drawn_views(block_scene)
    position = block_scene.position
    if case == "gone":
        views = [View(v.camera, v.background, v.background, v.valid) for v in views]
    elif case == "hidden":
        views = [View(v.camera, v.observed, v.background, np.zeros_like(v.valid)) for v in views]
    else:
        position = position + np.array([0.0, 5.0, 0.0])
    assert fit_pose(solid, position, block_scene.quaternion, views, motions=PLANAR) is None


def test_a_lost_body_is_found_again(block_scene):
    """From the other end of the table and turned around, the search finds what the fit alone does not."""
    solid, views = mujoco_views(block_scene)
    away = (
        block_scene.position + np.array([0.1, 0.1, 0.0]),
        turned(block_scene.quaternion, np.array([0, 0, 2.5])),
    )
    assert fit_pose(solid, *away, views, motions=PLANAR) is None
    place, turn = error_of(search_pose(solid, *away, views, config=FitConfig()), block_scene)
    assert place < 0.0015
    assert turn < 0.03
    nothing = [View(v.camera, v.background, v.background, v.valid) for v in views]
    assert search_pose(solid, *away, nothing, config=FitConfig()) is None


def test_exposure_is_estimated_from_the_background(random):
    """A darker, tinted picture gives the gains, whatever a fifth of its pixels shows instead."""
    background = 0.2 + 0.7 * random.random((30, 40, 3))
    observed = background * [0.8, 0.9, 0.7]
    observed[:10, :24] = 0.3
    valid = np.ones((30, 40), dtype=bool)
    assert exposure(observed, background, valid) == pytest.approx([0.8, 0.9, 0.7], rel=1e-6)
    assert exposure(observed, background, ~valid) == pytest.approx([1, 1, 1])


def test_masks_are_widened_in_all_directions():
    """One pixel becomes a square, also at the border."""
    mask = np.zeros((5, 6), dtype=bool)
    mask[0, 2] = True
    assert np.argwhere(widened(mask, 1)).tolist() == [[r, c] for r in (0, 1) for c in (1, 2, 3)]
    assert (widened(mask, 0) == mask).all()
