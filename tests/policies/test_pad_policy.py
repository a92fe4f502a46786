"""PAD: conformance, the attention mask, action-free video, published sizes, and what it learns."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch

from robot_datasets.features import DEPTH_PREFIX, IMAGE_PREFIX, STATE, Feature
from robot_datasets.windows import FUTURE_PREFIX
from robot_policies.configuration import ConfigError
from robot_policies.networks.dit import ConvStem
from robot_policies.policies import build_policy
from robot_policies.policies.frames import FrameContext, join, part
from robot_policies.policies.pad import PadNetwork, PadNetworkConfig, PadPolicy
from robot_policies.policy import RunningPlan
from robot_policies.spec import PolicySpec
from robot_policies.testing import (
    PolicyTests,
    example_batch,
    example_spec,
    example_stats,
    observation_of,
    seeds,
)

TOP = IMAGE_PREFIX + "top"
NETWORK = {"type": "dit", "width": 32, "n_layers": 2, "n_heads": 2, "patch": 2}
DDIM = {"type": "ddim", "steps": 3}
EPSILON = {"type": "diffusion", "train_steps": 20}


def config(**rest: Any) -> dict[str, Any]:
    return {
        "type": "pad",
        "network": NETWORK,
        "process": EPSILON,
        "sampler": DDIM,
        "codec": {"type": "pixels", "size": 6},
        **rest,
    }


def make(**rest: Any) -> PadPolicy:
    torch.manual_seed(0)
    spec = example_spec(images=True, future=True)
    policy = build_policy(config(**rest), spec, example_stats(spec))
    assert isinstance(policy, PadPolicy)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return policy


class TestPad(PolicyTests):
    """Pixels, noise prediction, one token per action."""

    images = future = True

    def policy_config(self) -> dict:
        return config()


class TestPadStem(PolicyTests):
    """Observed frames also reach their tokens through convolutions."""

    images = future = True

    def policy_config(self) -> dict:
        return config(network={**NETWORK, "stem": 8})


class TestPadConv(PolicyTests):
    """A codec that learns, EDM, and the original's single action token."""

    images = future = True

    def policy_config(self) -> dict:
        return config(
            codec={"type": "conv", "width": 8},
            network={**NETWORK, "patch": 1, "action_tokens": "chunk"},
            process={"type": "edm"},
            mask_padding=True,
        )


def context(**rest: Any) -> FrameContext:
    defaults: dict[str, Any] = {
        "action_dim": 2,
        "horizon": 4,
        "obs_dim": 3 + 3 * 16,
        "n_obs_steps": 1,
        "latents": {TOP: (3, 4, 4)},
        "n_future": {TOP: 2},
        "low_dim": 3,
    }
    return FrameContext(**{**defaults, **rest})


def test_frames_do_not_see_actions_and_actions_see_all() -> None:
    """Changing noisy actions or the state moves no frame; changing a noisy frame moves frames and actions."""
    torch.manual_seed(0)
    network = PadNetwork(PadNetworkConfig(width=16, n_layers=2, n_heads=2, patch=2), context())
    for parameter in network.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    x, time, encoded = torch.randn(2, 1, 4 * 2 + 6 * 16), torch.ones(2), torch.randn(2, 1, 51)
    actions, frames = part(network(x, time, encoded), network.context)
    other = x.clone()
    other[..., :8] += 1
    state = encoded.clone()
    state[..., :3] += 1
    for changed in (network(other, time, encoded), network(x, time, state)):
        moved, same = part(changed, network.context)
        torch.testing.assert_close(same[0], frames[0], atol=0, rtol=0)
        assert (moved - actions).abs().amin(dim=(1, 2)).min() > 0
    image = x.clone()
    image[..., -1] += 1
    changed_actions, changed_frames = part(network(image, time, encoded), network.context)
    assert (changed_frames[0] - frames[0]).abs().max() > 0
    assert (changed_actions - actions).abs().amin(dim=(1, 2)).min() > 0


def test_a_stem_orders_its_tokens_as_patches_are_ordered() -> None:
    """A texture in one patch moves that patch's token more than tokens elsewhere (mean over initial weights)."""
    torch.manual_seed(0)
    moved = torch.zeros(8, 8)  # [patch that changes, token]
    for _ in range(30):
        stem = ConvStem(3, 8, 16, 4)
        for k, (row, column) in enumerate(itertools.product(range(2), range(4))):
            frame = torch.zeros(1, 3, 8, 16)
            before = stem(frame)
            frame[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = torch.randn(3, 4, 4)
            moved[k] += (stem(frame) - before).norm(dim=-1)[0].detach()
    assert moved.argmax(dim=1).tolist() == list(range(8))


def test_frames_seen_through_a_stem_still_do_not_see_actions() -> None:
    """Observed frames alone pass through the stem, and its gradients come from the frames, too."""
    torch.manual_seed(0)
    config = PadNetworkConfig(width=16, n_layers=2, n_heads=2, patch=4, stem=8)
    network = PadNetwork(config, context(latents={TOP: (3, 16, 16)}, obs_dim=3 + 3 * 256))
    assert network.goal_dim == 0
    stem = network.stem[TOP.replace(".", "/")]
    for parameter in network.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    x, time, encoded = torch.randn(2, 1, 8 + 6 * 256), torch.ones(2), torch.randn(2, 1, 3 + 3 * 256)
    actions, frames = part(network(x, time, encoded), network.context)
    other = x.clone()
    other[..., :8] += 1
    moved_actions, same = part(network(other, time, encoded), network.context)
    torch.testing.assert_close(same[0], frames[0], atol=0, rtol=0)
    assert (moved_actions - actions).abs().amin(dim=(1, 2)).min() > 0
    stem.zero_grad()
    frames[0].sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in stem.parameters())


@pytest.mark.parametrize(
    ("patch", "stem", "told"), [(6, 8, "patch=6 is not a power of two"), (4, 0, "at least 1 channel")]
)
def test_a_stem_refuses_what_it_cannot_be_built_of(patch: int, stem: int, told: str) -> None:
    """Strided convolutions halve, so 6 is not reached; and they need channels."""
    with pytest.raises(ConfigError, match=told):
        ConvStem(3, stem, 16, patch)


def test_depth_sees_colour_but_colour_does_not_see_depth() -> None:
    """The order is colour, depth, actions; each attends to itself and what comes before."""
    depth = DEPTH_PREFIX + "top"
    both = context(
        latents={TOP: (3, 4, 4), depth: (1, 4, 4)}, n_future={TOP: 1, depth: 1}, obs_dim=3 + 4 * 16
    )
    network = PadNetwork(PadNetworkConfig(width=16, n_layers=1, n_heads=2, patch=2), both)
    allowed = network.allowed
    assert allowed.shape == (4 + 4 + 4,) * 2
    assert allowed[:4].sum(dim=1).tolist() == [4] * 4
    assert allowed[4:8].sum(dim=1).tolist() == [8] * 4
    assert allowed[8:].all()


def test_depth_is_seen_and_predicted_with_its_own_codec() -> None:
    """A depth camera of millimetres, 1000 of which fill the range, beside a colour camera."""
    depth = DEPTH_PREFIX + "top"
    base = example_spec(images=True, future=True)
    features = {**base.observation, depth: Feature(dtype="uint16", shape=(12, 12, 1))}
    spec = replace(base, observation=features, future={**base.future, depth: (2,)})
    built = build_policy(
        config(depth_codec={"type": "pixels", "size": 4, "max_value": 1000.0}), spec, example_stats(spec)
    )
    batch = example_batch(base)
    batch[depth] = torch.randint(0, 3000, (6, 2, 1, 12, 12), dtype=torch.int32)
    batch[FUTURE_PREFIX + depth] = torch.randint(0, 3000, (6, 1, 1, 12, 12), dtype=torch.int32)
    assert built.compute_loss(batch).loss.isfinite()
    frames = built.eval().predict_chunk(observation_of(batch)).predicted_frames
    assert frames is not None
    assert frames.frames[depth].shape == (6, 1, 1, 4, 4)
    assert frames.frames[TOP].shape == (6, 2, 3, 6, 6)


def test_joined_vectors_come_apart() -> None:
    """`part` inverts `join`, for cameras of different sizes."""
    both = context(
        latents={TOP: (3, 4, 4), "observation.images.wrist": (1, 2, 6)},
        n_future={TOP: 2, "observation.images.wrist": 1},
    )
    actions, frames = torch.randn(5, 4, 2), [torch.randn(5, 6, 4, 4), torch.randn(5, 1, 2, 6)]
    again, frames_again = part(join(actions, frames), both)
    torch.testing.assert_close(again, actions)
    for a, b in zip(frames_again, frames, strict=True):
        torch.testing.assert_close(a, b)


def test_a_video_without_actions_trains_the_frames_alone() -> None:
    """Its made-up actions change no loss; its frames do; a batch of videos only has no action loss."""
    policy, batch = make().train(), example_batch(example_spec(images=True, future=True))
    batch["action_is_valid"] = torch.ones(6, 2, dtype=torch.bool)
    batch["action_is_valid"][:3] = False

    def terms(changed: dict[str, Any]) -> dict[str, float]:
        torch.manual_seed(3)
        return {name: float(value) for name, value in policy.compute_loss(changed).terms.items()}

    base = terms(batch)
    nonsense = {**batch, "action": batch["action"].clone()}
    nonsense["action"][:3] = 1e3
    assert terms(nonsense)["frames"] == base["frames"]
    assert terms(nonsense)["action"] == base["action"]
    other = {**batch, FUTURE_PREFIX + TOP: batch[FUTURE_PREFIX + TOP].roll(1, 0)}
    assert terms(other)["frames"] != base["frames"]
    videos = {**batch, "action_is_valid": torch.zeros(6, 2, dtype=torch.bool)}
    assert terms(videos)["action"] == 0
    assert policy.compute_loss(videos).loss.isfinite()


def test_an_instruction_steers_frames_and_actions() -> None:
    """Words reach both branches, through the condition of every block."""
    spec = replace(example_spec(images=True, future=True), instructed=True)
    torch.manual_seed(0)
    policy = build_policy(config(), spec, example_stats(spec)).eval()
    for parameter in policy.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    observation = observation_of(example_batch(spec))
    first, second = (
        policy.predict_chunk(observation, goal={"task": [words] * 6}, generator=seeds(6))
        for words in ("open the drawer", "push the T")
    )
    assert (first.actions - second.actions).abs().max() > 1e-3
    assert first.predicted_frames is not None
    assert second.predicted_frames is not None
    assert not torch.equal(first.predicted_frames.frames[TOP], second.predicted_frames.frames[TOP])


def test_predicted_frames_come_with_the_chunk() -> None:
    """uint8, in the codec's size, with the steps they are for."""
    policy = make().eval()
    chunk = policy.predict_chunk(observation_of(example_batch(policy.spec)), generator=seeds(6))
    assert chunk.predicted_frames is not None
    assert chunk.predicted_frames.offsets == {TOP: (2, 5)}
    frames = chunk.predicted_frames.frames[TOP]
    assert frames.shape == (6, 2, 3, 6, 6)
    assert frames.dtype == torch.uint8


def test_actions_and_frames_are_learned_together() -> None:
    """On data where state says both, sampled actions and frames approach the truth."""
    torch.manual_seed(0)
    spec = example_spec(images=True, future=True)
    policy = build_policy(config(process={"type": "flow"}), spec, example_stats(spec)).train()
    batch = example_batch(spec, 32)
    sign = (torch.rand(32) < 0.5).float()[:, None, None] * 2 - 1
    batch["action"] = (10 + 15 * sign).expand_as(batch["action"]).contiguous()
    batch[TOP] = (128 + 100 * sign[..., None, None]).to(torch.uint8).expand_as(batch[TOP]).contiguous()
    batch[FUTURE_PREFIX + TOP] = 255 - batch[TOP]
    optimiser = torch.optim.AdamW(policy.parameters(), lr=3e-3)
    for _ in range(150):
        loss = policy.compute_loss(batch).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    chunk = policy.eval().predict_chunk(observation_of(batch), sampler={"type": "ddim", "steps": 6})
    assert (chunk.actions - batch["action"]).abs().mean() < 4
    assert chunk.predicted_frames is not None
    wanted = batch[FUTURE_PREFIX + TOP].float().mean(dim=(2, 3, 4))
    assert (chunk.predicted_frames.frames[TOP].float().mean(dim=(2, 3, 4)) - wanted).abs().mean() < 25


def test_it_continues_a_running_plan() -> None:
    """Guidance reaches the actions of the joint sample and leaves their shape."""
    policy = make(process={"type": "flow"}).eval()
    batch = example_batch(policy.spec)
    plan = RunningPlan(actions=torch.full((6, 8, 2), 20.0), weights=torch.ones(6, 8), limit=5.0)
    free = policy.predict_chunk(observation_of(batch), generator=seeds(6)).actions
    held = policy.continue_chunk(observation_of(batch), plan, generator=seeds(6)).actions
    assert (held - 20).abs().mean() < (free - 20).abs().mean()


@pytest.mark.parametrize(
    ("sizes", "millions"),
    [
        ({}, (655, 690)),  # XL/2
        ({"width": 1024, "n_layers": 24}, (445, 470)),  # L/2
        ({"width": 768, "n_layers": 12, "n_heads": 12}, (125, 135)),  # B/2
    ],
)
def test_networks_have_the_published_size(sizes: dict, millions: tuple[int, int]) -> None:
    """One camera of 256 px (latents 4 x 32 x 32), three future frames, as in the paper."""
    latent = context(
        latents={TOP: (4, 32, 32)}, n_future={TOP: 3}, horizon=3, action_dim=4, low_dim=4, obs_dim=4 + 4096
    )
    with torch.device("meta"):
        network = PadNetwork(PadNetworkConfig(action_tokens="chunk", **sizes), latent)
    assert network.allowed.shape == (257, 257)
    low, high = millions
    assert low < sum(p.numel() for p in network.parameters()) / 1e6 < high


def test_what_does_not_fit_is_explained() -> None:
    """No frames ahead, cameras that are seen but not predicted, patches that do not divide."""
    for spec, changes, message in (
        (example_spec(images=True), {}, "set dataset.future"),
        (
            example_spec(images=True, future=True),
            {"network": {**NETWORK, "patch": 4}},
            "patch=4 does not divide",
        ),
        (example_spec(images=True, goals=True, future=True), {}, "only through the frames"),
        (
            PolicySpec(
                observation={STATE: Feature(dtype="float32", shape=(3,))},
                action=Feature(dtype="float32", shape=(2,)),
                n_obs_steps=1,
                horizon=4,
                n_action_steps=2,
                fps=10.0,
                future={TOP: (1,)},
            ),
            {},
            "is not observed",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            build_policy(config(**changes), spec, example_stats(spec))


SAMPLE = {"type": "diffusion", "train_steps": 20, "prediction": "sample"}


def test_changes_start_from_the_last_frame() -> None:
    """With ``target: change`` a network that has learned nothing repeats the last observed frame, not noise."""
    spec = example_spec(images=True, future=True)
    policy = build_policy(config(target="change", process=SAMPLE), spec, example_stats(spec)).eval()
    assert isinstance(policy, PadPolicy)
    batch = example_batch(spec)
    predicted = policy.predict_chunk(observation_of(batch)).predicted_frames
    assert predicted is not None
    codec = policy.codec(TOP)
    last = codec.decode(codec.encode(batch[TOP][:, -1]))
    for k in range(predicted.frames[TOP].shape[1]):
        torch.testing.assert_close(predicted.frames[TOP][:, k], last, atol=1, rtol=0)


def test_changes_lead_to_the_future_frame() -> None:
    """Decoding the latents of the true changes gives the true frames."""
    policy = make(target="change")
    batch = example_batch(policy.spec)
    last = [policy.last_latent(TOP, batch)]
    frames = policy.decode(policy.future_latents(batch), last).frames[TOP]
    wanted = policy.codec(TOP).encode(batch[FUTURE_PREFIX + TOP].flatten(0, 1))
    torch.testing.assert_close(frames.flatten(0, 1), policy.codec(TOP).decode(wanted), atol=1, rtol=0)
