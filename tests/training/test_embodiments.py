"""Different robots in one mixture: trained together, then each acted for with its own components."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from robot_datasets.episode import Episode
from robot_datasets.errors import UserError
from robot_datasets.features import ACTION, STATE, Feature
from robot_datasets.image_codec import encode_frame
from robot_datasets.shared_view import STATE_IS_VALID
from robot_datasets.store import EpisodeStoreWriter
from robot_policies.checkpoint import load_policy, policy_config, read_json
from robot_policies.cli.main import main
from robot_policies.configuration import to_mapping
from robot_policies.embodiments import EmbodimentPolicy, find_embodiment
from robot_policies.policies import build_policy
from robot_policies.policies.base import NetworkPolicy
from robot_policies.spec import SpecError
from robot_policies.training.batches import to_tensors
from robot_policies.training.config import RunConfig
from robot_policies.training.data import open_data

ARM = ("j1", "j2", "grip")
TWO_ARMS = ("grip", "lj1", "rj1", "rj2")


@pytest.fixture(autouse=True)
def _keep_logging():
    """The command configures logging for its process; give it back."""
    root, ours = logging.getLogger(), logging.getLogger("robot_policies")
    handlers, level = root.handlers[:], ours.level
    yield
    root.handlers[:] = handlers
    ours.setLevel(level)


def _write_store(path: Path, names: tuple[str, ...], *, centre: float, width: float) -> None:
    """Circles about `centre`; the action is the next state, so a policy that copies the state is nearly right."""
    feature = Feature(dtype="float32", shape=(len(names),), names=names, units=("rad",))
    phases = np.arange(len(names))
    with EpisodeStoreWriter(
        path, features={STATE: feature, ACTION: feature}, fps=10, embodiment=path.stem
    ) as writer:
        for i in range(6):
            time = np.arange(31)[:, None] * 0.2 + i
            values = (centre + width * np.sin(time + phases)).astype(np.float32)
            writer.add_episode(Episode(f"e{i}", {STATE: values[:-1], ACTION: values[1:]}))
        writer.publish()


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy trained by the command line on two robots with different ranges."""
    folder = tmp_path_factory.mktemp("embodiments")
    _write_store(folder / "arm.zarr", ARM, centre=0.0, width=1.0)
    _write_store(folder / "two_arms.zarr", TWO_ARMS, centre=100.0, width=5.0)
    arm = "{right_arm: [j1, j2], right_gripper: [grip]}"
    two = "{left_arm: [lj1], right_arm: [rj1, rj2], right_gripper: [grip]}"
    root, ours = logging.getLogger(), logging.getLogger("robot_policies")
    handlers, level = root.handlers[:], ours.level
    status = main(
        [
            "train",
            "dataset=mixture",
            "dataset.layout=shared",
            f"dataset.mixture=[{{path: {folder}/arm.zarr, weight: 1, view: {{slots: {arm}}}}}, "
            f"{{path: {folder}/two_arms.zarr, weight: 1, view: {{slots: {two}}}}}]",
            f"dataset.observation=[{STATE},{STATE_IS_VALID}]",
            "dataset.val_ratio=0.2",
            "policy=diffusion_mlp",
            "policy.network.width=128",
            "window.n_obs_steps=1",
            "window.horizon=4",
            "window.n_action_steps=2",
            "sampler=ddim",
            "trainer.steps=200",
            "trainer.warmup_steps=10",
            "trainer.lr=5e-3",
            "trainer.batch_size=32",
            "trainer.val_every=100",
            "trainer.tensorboard=false",
            "trainer.threads=1",
            f"output_dir={folder}/run",
        ]
    )
    root.handlers[:] = handlers
    ours.setLevel(level)
    assert status == 0
    return folder / "run"


@pytest.mark.parametrize(
    ("name", "names", "centre", "width"), [("arm", ARM, 0.0, 1.0), ("two_arms", TWO_ARMS, 100.0, 5.0)]
)
def test_each_robot_is_acted_for_in_its_own_units(
    run_folder: Path, name: str, names: tuple[str, ...], centre: float, width: float
) -> None:
    """The spec is the robot's, and the predicted actions are close to what it demonstrated."""
    loaded = load_policy(run_folder, embodiment=name)
    assert loaded.spec.action.names == names
    assert list(loaded.spec.observation) == [STATE]
    time = np.arange(0, 6, 0.5)[:, None] + np.arange(len(names))
    state = torch.tensor(centre + width * np.sin(time), dtype=torch.float32)[:, None]
    chunk = loaded.policy.predict_chunk({STATE: state}, generator=torch.Generator().manual_seed(0))
    assert chunk.actions.shape == (len(time), 4, len(names))
    wanted = centre + width * np.sin(time + 0.2)
    error = np.abs(chunk.actions[:, 0].numpy() - wanted).mean() / width
    assert error < 0.25


def test_the_policy_itself_speaks_the_shared_layout(run_folder: Path) -> None:
    """Without an embodiment the spec is that of the mixture: only the slots that a robot fills."""
    spec = load_policy(run_folder).spec
    assert spec.action.shape == (7 + 7 + 1,)
    assert spec.action.names[0] == "left_arm.0"
    card = read_json(run_folder / "checkpoints" / "last" / "dataset_card.json")
    assert [entry["name"] for entry in card["embodiments"]] == ["arm.zarr", "two_arms.zarr"]


@pytest.mark.parametrize(
    ("embodiment", "message"),
    [("amr", "did you mean 'arm"), ("arm.zar", "did you mean 'arm.zarr'")],
)
def test_unknown_embodiments_come_with_the_nearest(run_folder: Path, embodiment: str, message: str) -> None:
    """A misspelt embodiment is an error with a suggestion."""
    with pytest.raises(UserError, match=message):
        load_policy(run_folder, embodiment=embodiment)


def test_evaluation_asks_which_robot(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Evaluating a policy of several robots without naming one ends with a line that names them."""
    assert main(["eval", f"checkpoint={run_folder}", "task=pusht"]) == 2
    assert "choose embodiment=arm.zarr|two_arms.zarr" in capsys.readouterr().err


def test_a_policy_of_one_robot_has_no_embodiments(run_folder: Path, tmp_path: Path) -> None:
    """Naming an embodiment of a checkpoint that has none is an error, and so is training one face of a policy."""
    with pytest.raises(UserError, match="trained on one embodiment"):
        find_embodiment({}, "arm")
    policy = load_policy(run_folder, embodiment="arm").policy
    with pytest.raises(UserError, match="cannot be trained"):
        policy.compute_loss({})


def test_absent_components_hardly_count(run_folder: Path) -> None:
    """The gradient of an absent component is the configured fraction of a present one's."""
    policy = load_policy(run_folder).policy
    assert isinstance(policy, NetworkPolicy)
    error = torch.ones(2, 4, 15, requires_grad=True)
    valid = torch.zeros(2, 15, dtype=torch.bool)
    valid[0, :3] = True
    valid[1] = True
    policy.mean_over_chunk(error, {"action_is_valid": valid}).backward()
    assert error.grad is not None
    torch.testing.assert_close(error.grad[0, 0, 5], 0.1 * error.grad[0, 0, 0])
    torch.testing.assert_close(error.grad.sum(dim=(1, 2)), torch.full((2,), 0.5))


def _write_camera_store(path: Path, names: tuple[str, ...], camera: str, size: tuple[int, int]) -> None:
    feature = Feature(dtype="float32", shape=(len(names),), names=names)
    features = {STATE: feature, ACTION: feature, camera: Feature(dtype="uint8", shape=(*size, 3))}
    random = np.random.default_rng(0)
    with EpisodeStoreWriter(path, features=features, fps=10, embodiment=path.stem) as writer:
        for i in range(3):
            values = random.normal(size=(9, len(names))).astype(np.float32)
            frames = [
                encode_frame(random.integers(0, 256, (*size, 3), dtype=np.uint8), "png") for _ in range(9)
            ]
            writer.add_episode(Episode(f"e{i}", {STATE: values, ACTION: values}, {camera: frames}))
        writer.publish()


def test_cameras_of_different_robots_become_one(tmp_path: Path) -> None:
    """Cameras of other names and sizes are brought together; each robot is asked for its own frames."""
    top, front = "observation.images.top", "observation.images.front"
    _write_camera_store(tmp_path / "arm.zarr", ARM, top, (24, 32))
    _write_camera_store(tmp_path / "two.zarr", TWO_ARMS, front, (40, 30))
    slots = {
        "arm": {"right_arm": ["j1", "j2"], "right_gripper": ["grip"]},
        "two": {"left_arm": ["lj1"], "right_arm": ["rj1", "rj2"], "right_gripper": ["grip"]},
    }
    cameras = {"arm": {"head": "top", "wrist": ""}, "two": {"head": "front", "wrist": "front"}}
    run = RunConfig.parse(
        {
            "dataset": {
                "mixture": [
                    {"path": str(tmp_path / f"{name}.zarr"), "view": {"slots": own, "cameras": cameras[name]}}
                    for name, own in slots.items()
                ],
                "observation": [STATE, "observation.images.head", "observation.images.wrist"],
                "layout": "shared",
                "image_size": [24, 24],
            },
            "policy": {
                "type": "regression",
                "network": {"type": "mlp"},
                "image_encoder": {"type": "resnet"},
            },
            "window": {"n_obs_steps": 1, "horizon": 4, "n_action_steps": 2},
            "output_dir": str(tmp_path / "run"),
        }
    )
    data = open_data(run.dataset, run.window)
    batch = data.train.__getitems__(np.arange(len(data.train)))
    assert batch["observation.images.head"].shape[1:] == (1, 3, 24, 24)
    wrist = batch["observation.images.wrist"].reshape(len(batch["dataset_index"]), -1).any(axis=1)
    np.testing.assert_array_equal(wrist, batch["dataset_index"] == 1)
    shared = build_policy(policy_config(to_mapping(run)), data.spec, data.stats).eval()
    shared.compute_loss(to_tensors(batch, torch.device("cpu"))).loss.backward()
    for name, camera, size in (("arm.zarr", top, (24, 32)), ("two.zarr", front, (40, 30))):
        policy = EmbodimentPolicy(shared, find_embodiment(json.loads(json.dumps(data.card)), name))
        assert list(policy.spec.observation) == [STATE, camera]
        names = policy.spec.action.names
        pixels = torch.randint(0, 256, (2, 1, 3, *size), dtype=torch.uint8)
        chunk = policy.predict_chunk({STATE: torch.zeros(2, 1, len(names)), camera: pixels})
        assert chunk.actions.shape == (2, 4, len(names))
        with pytest.raises(SpecError, match=camera):
            policy.predict_chunk({STATE: torch.zeros(2, 1, len(names))})
