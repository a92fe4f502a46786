"""A small store on disk, a small configuration, and the smallest policy that learns."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robot_datasets.episode import Episode
from robot_datasets.features import Feature
from robot_datasets.store import EpisodeStoreWriter
from robot_policies.normalizer import Normalizer
from robot_policies.policies import policies
from robot_policies.policy import ActionChunk, LossOutput, Policy


@dataclass(frozen=True, kw_only=True)
class BehaviourCloningConfig:
    """A policy of one linear layer; `noise` is added to its input while training."""

    noise: float = 0.0


class BehaviourCloning(Policy):
    """Regresses the chunk from the observations."""

    def __init__(self, config: BehaviourCloningConfig, spec: Any, stats: Any) -> None:
        super().__init__(spec)
        self.noise = config.noise
        dims = {name: feature.shape[0] for name, feature in spec.observation.items()}
        self.normalizer = Normalizer({**dims, "action": spec.action_dim}, {}, stats)
        self.layer = torch.nn.Linear(spec.n_obs_steps * sum(dims.values()), spec.horizon * spec.action_dim)

    def chunk(self, batch: Any, noise: float) -> torch.Tensor:
        parts = [self.normalizer[name].normalize(batch[name]).flatten(1) for name in self.spec.observation]
        inputs = torch.cat(parts, dim=1)
        return self.layer(inputs + noise * torch.randn_like(inputs)).unflatten(1, (self.spec.horizon, -1))

    def compute_loss(self, batch):
        error = (self.chunk(batch, self.noise) - self.normalizer["action"].normalize(batch["action"])) ** 2
        return LossOutput(loss=error.mean(), terms={"first_step": error[:, 0].mean().detach()})

    @torch.no_grad()
    def predict_chunk(self, observation, *, goal=None, generator=None, sampler=None):
        actions = self.normalizer["action"].unnormalize(self.chunk(observation, 0.0))
        return ActionChunk(actions=actions, n_network_calls=1)


if "behaviour_cloning" not in policies.names():

    @policies.register("behaviour_cloning", BehaviourCloningConfig)
    def build_behaviour_cloning(config, *, spec, stats):
        return BehaviourCloning(config, spec, stats)


def write_store(path: Path, *, lengths: tuple[int, ...] = (20, 31, 25, 28), camera: bool = False) -> Path:
    """Write episodes of a point that circles; the action is its next position."""
    features = {
        "observation.state": Feature(dtype="float32", shape=(3,)),
        "action": Feature(dtype="float32", shape=(2,)),
    }
    if camera:
        features["observation.images.top"] = Feature(dtype="uint8", shape=(16, 16, 3))
    rng = np.random.default_rng(0)
    encodings = {"observation.images.top": "raw"} if camera else None
    with EpisodeStoreWriter(
        path, features=features, fps=10, embodiment="point", image_encodings=encodings
    ) as writer:
        for i, length in enumerate(lengths):
            angle = np.arange(length + 1) * 0.2 + rng.uniform(0, 6)
            point = np.stack([np.cos(angle), np.sin(angle)], axis=1)
            data = {
                "observation.state": np.concatenate([point[:-1], point[1:, :1]], axis=1).astype(np.float32),
                "action": point[1:].astype(np.float32) * 100,
            }
            frames = [rng.integers(0, 255, (16, 16, 3), dtype=np.uint8).tobytes() for _ in range(length)]
            writer.add_episode(Episode(f"e{i}", data, {"observation.images.top": frames} if camera else {}))
        writer.publish()
    return path


@pytest.fixture(scope="session")
def circle_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of four low-dimensional episodes."""
    return write_store(tmp_path_factory.mktemp("store") / "circle.zarr")


@pytest.fixture(scope="session")
def store_writer() -> Callable[..., Path]:
    """`write_store`, for tests that need other episodes."""
    return write_store


@pytest.fixture
def make_config(circle_store: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Build a small run configuration; keyword arguments replace trainer fields, ``top`` those at the top."""

    def make(output: str = "run", *, top: dict[str, Any] | None = None, **trainer: Any) -> dict[str, Any]:
        defaults = {
            "steps": 20,
            "batch_size": 8,
            "lr": 1e-2,
            "warmup_steps": 5,
            "val_every": 10,
            "checkpoint_every": 10,
            "val_windows": 16,
            "log_every": 5,
            "tensorboard": False,
        }
        config: dict[str, Any] = {
            "dataset": {"path": str(circle_store), "observation": ["observation.state"], "val_ratio": 0.25},
            "window": {"n_obs_steps": 2, "horizon": 8, "n_action_steps": 4},
            "policy": {"type": "behaviour_cloning", "noise": 0.1},
            "trainer": {**defaults, **trainer},
            "output_dir": str(tmp_path / output),
            "device": "cpu",
        }
        return {**config, **(top or {})}

    return make
