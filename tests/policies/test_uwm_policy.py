"""UWM: conformance, its modes, hidden modalities, action-free video, and the published size."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from robot_datasets.features import IMAGE_PREFIX
from robot_datasets.windows import FUTURE_PREFIX
from robot_policies.configuration import ConfigError
from robot_policies.policies import build_policy
from robot_policies.policies.frames import FrameContext
from robot_policies.policies.uwm import Noisy, UwmNetwork, UwmNetworkConfig, UwmPolicy, cleanest, noisiest
from robot_policies.policy import RunningPlan
from robot_policies.testing import (
    PolicyTests,
    example_batch,
    example_spec,
    example_stats,
    observation_of,
    seeds,
)

TOP = IMAGE_PREFIX + "top"
NETWORK = {
    "type": "dit",
    "width": 32,
    "n_layers": 2,
    "n_heads": 2,
    "patch": 3,
    "registers": 2,
    "time_width": 16,
}
ENCODER = {"type": "resnet", "stage_channels": [8, 16], "blocks_per_stage": 1, "n_keypoints": 4, "out_dim": 8}


def config(**rest: Any) -> dict[str, Any]:
    return {
        "type": "uwm",
        "network": NETWORK,
        "process": {"type": "diffusion", "train_steps": 20},
        "sampler": {"type": "ddim", "steps": 3},
        "codec": {"type": "pixels", "size": 6},
        "image_encoder": {**ENCODER, "crop": 1.0},
        **rest,
    }


def make(**rest: Any) -> UwmPolicy:
    torch.manual_seed(0)
    spec = example_spec(images=True, future=True)
    policy = build_policy(config(**rest), spec, example_stats(spec))
    assert isinstance(policy, UwmPolicy)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return policy


class TestUwmHidden(PolicyTests):
    """Absent modalities are left out."""

    images = future = True

    def policy_config(self) -> dict:
        return config()


class TestUwmNoise(PolicyTests):
    """Absent modalities are noise, as in the paper; the codec learns."""

    images = future = True

    def policy_config(self) -> dict:
        return config(absent="noise", codec={"type": "conv", "width": 8}, process={"type": "edm"})


class TestUwmJoint(PolicyTests):
    """Actions and frames together."""

    images = future = True

    def policy_config(self) -> dict:
        return config(mode="joint", process={"type": "flow"}, mask_padding=True)


def network() -> UwmNetwork:
    torch.manual_seed(0)
    context = FrameContext(
        action_dim=2,
        horizon=4,
        obs_dim=5,
        n_obs_steps=2,
        latents={TOP: (3, 6, 6)},
        n_future={TOP: 2},
        low_dim=5,
    )
    sizes = {name: value for name, value in NETWORK.items() if name != "type"}
    built = UwmNetwork(UwmNetworkConfig(**sizes), context)
    for parameter in built.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return built


def test_hiding_is_leaving_out() -> None:
    """A hidden modality has no influence on the other: the same numbers as without its tokens, row by row."""
    net = network()
    encoded, time = torch.randn(3, 2, 5), torch.tensor([1.0, 5.0, 9.0])
    actions, frames = Noisy(torch.randn(3, 4, 2), time), Noisy(torch.randn(3, 1, 216), time.flip(0))
    hidden = torch.tensor([[False, True], [True, False], [False, False]])
    out_a, out_z = net(actions, frames, encoded, hidden)
    alone_a, nothing = net(actions, None, encoded)
    _, alone_z = net(None, frames, encoded)
    both_a, both_z = net(actions, frames, encoded)
    assert nothing.numel() == 0
    torch.testing.assert_close(out_a[0], alone_a[0])
    torch.testing.assert_close(out_z[1], alone_z[1])
    torch.testing.assert_close(out_a[2], both_a[2])
    torch.testing.assert_close(out_z[2], both_z[2])
    assert (both_a[0] - alone_a[0]).abs().max() > 1e-4
    assert (both_z[1] - alone_z[1]).abs().max() > 1e-4


def test_the_policy_does_not_depend_on_noise_in_the_frames() -> None:
    """Policy mode draws noise for the actions only: frames have no part in the chunk at all."""
    policy = make().eval()
    observation = observation_of(example_batch(policy.spec))
    given: list[Noisy | None] = []
    policy.network.register_forward_pre_hook(lambda module, arguments: given.append(arguments[1]))
    chunk = policy.predict_chunk(observation, generator=seeds(6))
    assert given == [None, None, None]
    assert chunk.predicted_frames is None


@pytest.mark.parametrize("process", ["diffusion", "edm", "flow"])
def test_absent_and_clean_are_the_ends_of_the_process(process: str) -> None:
    """Absent is where sampling starts; clean is the least noise that training has, not none."""
    options = {"train_steps": 20} if process == "diffusion" else {}
    policy = make(process={"type": process, **options})
    like = torch.zeros(())
    most, least = noisiest(policy.process, like), cleanest(policy.process, like)
    assert most.sigma > 5 * most.alpha
    assert 0 < least.sigma < 0.2
    assert least.alpha > 0.97


def toy(n: int = 48) -> tuple[UwmPolicy, dict[str, Any]]:
    """A world in which an unobservable coin decides what is done, and what is done decides what is seen."""
    torch.manual_seed(0)
    spec = example_spec(images=True, future=True)
    policy = build_policy(config(process={"type": "flow"}), spec, example_stats(spec))
    assert isinstance(policy, UwmPolicy)
    batch = example_batch(spec, n)
    sign = (torch.arange(n) % 2 * 2.0 - 1)[:, None, None]
    batch["action"] = (10 + 15 * sign).expand(n, 8, 2).contiguous()
    bright = (128 + 100 * sign[..., None, None]).to(torch.uint8)
    batch[FUTURE_PREFIX + TOP] = bright.expand(n, 2, 3, 24, 24).contiguous()
    for name in spec.observation:
        batch[name] = batch[name][:1].expand_as(batch[name]).contiguous()
    return policy, batch


def test_dynamics_are_better_than_guesses() -> None:
    """Knowing the actions, frames are predicted better than without; knowing the frames, actions are, too."""
    policy, batch = toy()
    optimiser = torch.optim.AdamW(policy.parameters(), lr=3e-3)
    policy.train()
    for _ in range(150):
        loss = policy.compute_loss(batch).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    policy.eval()
    observation, action, ahead = observation_of(batch), batch["action"], batch[FUTURE_PREFIX + TOP]
    generator = torch.Generator().manual_seed(0)
    options: dict[str, Any] = {"sampler": {"type": "ddim", "steps": 5}, "generator": generator}

    def frame_error(frames: Any) -> float:
        seen = frames.frames[TOP].float().mean(dim=(2, 3, 4))
        return float((seen - ahead.float().mean(dim=(2, 3, 4))).abs().mean())

    video = frame_error(policy.predict_frames(observation, **options))
    forward = frame_error(policy.predict_frames(observation, actions=action, **options))
    guess = float((policy.predict_chunk(observation, **options).actions - action).abs().mean())
    inverse = policy.infer_actions(observation, {FUTURE_PREFIX + TOP: ahead}, **options).actions
    assert forward < 0.5 * video
    assert float((inverse - action).abs().mean()) < 0.5 * guess


@pytest.mark.parametrize("absent", ["noise", "hidden"])
def test_a_video_without_actions_trains_the_frames_alone(absent: str) -> None:
    """Its made-up actions change no loss; a batch of videos only has no action loss."""
    policy, batch = make(absent=absent).train(), example_batch(example_spec(images=True, future=True))
    batch["action_is_valid"] = torch.ones(6, 2, dtype=torch.bool)
    batch["action_is_valid"][:3] = False

    def terms(changed: dict[str, Any]) -> dict[str, float]:
        torch.manual_seed(4)
        return {name: float(value) for name, value in policy.compute_loss(changed).terms.items()}

    base = terms(batch)
    nonsense = {**batch, "action": batch["action"].clone()}
    nonsense["action"][:3] = 1e3
    assert terms(nonsense) == base
    videos = {**batch, "action_is_valid": torch.zeros(6, 2, dtype=torch.bool)}
    assert terms(videos)["action"] == 0
    assert policy.compute_loss(videos).loss.isfinite()


def test_joint_mode_predicts_frames() -> None:
    """Its chunk carries them; in policy mode there are none."""
    policy = make(mode="joint").eval()
    chunk = policy.predict_chunk(observation_of(example_batch(policy.spec)), generator=seeds(6))
    assert chunk.predicted_frames is not None
    assert chunk.predicted_frames.frames[TOP].shape == (6, 2, 3, 6, 6)
    assert chunk.predicted_frames.offsets == {TOP: (2, 5)}


def test_it_continues_a_running_plan_in_policy_mode_only() -> None:
    """Guidance works where actions are denoised alone; joint mode says so."""
    batch = example_batch(example_spec(images=True, future=True))
    plan = RunningPlan(actions=torch.full((6, 8, 2), 20.0), weights=torch.ones(6, 8), limit=5.0)
    policy = make(process={"type": "flow"}).eval()
    free = policy.predict_chunk(observation_of(batch), generator=seeds(6)).actions
    held = policy.continue_chunk(observation_of(batch), plan, generator=seeds(6)).actions
    assert (held - 20).abs().mean() < (free - 20).abs().mean()
    with pytest.raises(ConfigError, match=r"policy\.mode=policy"):
        make(mode="joint").eval().continue_chunk(observation_of(batch), plan)


def test_the_network_has_the_published_size() -> None:
    """Two cameras of 224 px with two frames each, 16 actions, a condition of 3584: about 298 million."""
    cameras = (TOP, IMAGE_PREFIX + "wrist")
    context = FrameContext(
        action_dim=7,
        horizon=16,
        obs_dim=2 * 768,
        n_obs_steps=2,
        latents=dict.fromkeys(cameras, (4, 28, 28)),
        n_future=dict.fromkeys(cameras, 2),
        low_dim=0,
    )
    with torch.device("meta"):
        net = UwmNetwork(UwmNetworkConfig(), context)
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(298, rel=0.03)
    assert [p.shape[0] for p in net.patch_position] == [49, 49]
    steering = sum(p.numel() for name, p in net.dit.named_parameters() if "modulation" in name)
    assert steering / 1e6 == pytest.approx(198, rel=0.01)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drop": 0.0}, r"drop must be in \(0, 0.5\)"),
        ({"mode": "video"}, "unknown value 'video'"),
        ({"network": {**NETWORK, "patch": 4}}, "patch=4 does not divide"),
        ({"codec": {"type": "conv", "size": 20}}, "not divisible by 8"),
    ],
)
def test_what_does_not_fit_is_explained(changes: dict, message: str) -> None:
    """Options are checked when the policy is built."""
    with pytest.raises(ConfigError, match=message):
        make(**changes)


def test_changes_start_from_the_last_frame() -> None:
    """With ``target: change`` a network that has learned nothing repeats the last observed frame, not noise."""
    spec = example_spec(images=True, future=True)
    process = {"type": "diffusion", "train_steps": 20, "prediction": "sample"}
    policy = build_policy(config(target="change", process=process), spec, example_stats(spec)).eval()
    assert isinstance(policy, UwmPolicy)
    batch = example_batch(spec)
    predicted = policy.predict_frames(observation_of(batch)).frames[TOP]
    codec = policy.codec(TOP)
    last = codec.decode(codec.encode(batch[TOP][:, -1]))
    torch.testing.assert_close(predicted[:, 0], last, atol=1, rtol=0)
    with pytest.raises(ConfigError, match=r"mode=joint needs policy\.target=frame"):
        build_policy(config(target="change", mode="joint"), spec, example_stats(spec))
