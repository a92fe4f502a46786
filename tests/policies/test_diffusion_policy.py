"""Diffusion Policy: conformance of its variants, published sizes, and its own options."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from robot_datasets.features import ACTION, Feature
from robot_policies.configuration import ConfigError
from robot_policies.networks import NetworkContext, networks
from robot_policies.networks.vision import SpatialSoftmax, crop_images, image_encoders
from robot_policies.policies import build_policy
from robot_policies.policies.base import NetworkPolicy
from robot_policies.spec import PolicySpec, SpecError
from robot_policies.testing import (
    PolicyTests,
    example_batch,
    example_spec,
    example_stats,
    observation_of,
    seeds,
)

UNET = {"type": "unet1d", "down_dims": [16, 32], "kernel_size": 3, "step_embed_dim": 16}
TRANSFORMER = {"type": "transformer", "width": 32, "n_layers": 2, "n_heads": 2, "attention_dropout": 0.0}
MLP = {"type": "mlp", "width": 48, "n_blocks": 2}
IMAGE_ENCODER = {
    "type": "resnet",
    "stage_channels": [8, 16],
    "blocks_per_stage": 1,
    "n_keypoints": 4,
    "out_dim": 8,
}
EDM = {"type": "edm"}
DDIM = {"type": "ddim", "steps": 4}


def config(network: dict, process: dict = EDM, **rest: Any) -> dict[str, Any]:
    return {"type": "diffusion", "network": network, "process": process, "sampler": DDIM, **rest}


class TestUnetEdm(PolicyTests):
    """UNet with EDM preconditioning."""

    def policy_config(self) -> dict:
        return config(UNET)


class TestUnetEpsilon(PolicyTests):
    """The paper's combination, small."""

    def policy_config(self) -> dict:
        return config(UNET, {"type": "diffusion", "train_steps": 20})


class TestTransformerEpsilon(PolicyTests):
    """The paper's transformer, small."""

    def policy_config(self) -> dict:
        return config(TRANSFORMER, {"type": "diffusion", "train_steps": 20})


class TestMlpSample(PolicyTests):
    """MLP that predicts the chunk itself."""

    def policy_config(self) -> dict:
        return config(MLP, {"type": "diffusion", "prediction": "sample"}, mask_padding=True)


class TestMlpFlow(PolicyTests):
    """Rectified flow."""

    def policy_config(self) -> dict:
        return config(MLP, {"type": "flow", "time_distribution": "beta"})


class TestMlpLogLogistic(PolicyTests):
    """BESO's noise levels: log-logistic in training, an exponential grid and three ancestral steps at inference."""

    def policy_config(self) -> dict:
        levels = {"sigma_min": 0.005, "sigma_max": 1.0, "spacing": "exponential"}
        process = {"type": "edm", "training_levels": "log_logistic", **levels}
        return {**config(MLP, process), "sampler": {"type": "euler_ancestral", "steps": 3}}


class TestUnetImages(PolicyTests):
    """UNet that sees a camera."""

    images = True

    def policy_config(self) -> dict:
        return config(UNET, image_encoder={**IMAGE_ENCODER, "crop": 1.0})


@pytest.mark.parametrize(
    ("network", "context", "count"),
    [
        ({"type": "unet1d"}, (2, 16, 20, 2), 65.8),
        ({"type": "unet1d", "down_dims": [512, 1024, 2048], "step_embed_dim": 128}, (10, 16, 137, 2), 255.6),
        ({"type": "transformer"}, (2, 16, 20, 2), 9.0),
        ({"type": "transformer", "width": 768}, (9, 16, 60, 4), 80.4),
    ],
)
def test_networks_have_the_published_size(network: dict, context: tuple, count: float) -> None:
    """Parameters [millions] of the paper's presets: PushT, Square (images), PushT, Kitchen."""
    action_dim, horizon, obs_dim, n_obs_steps = context
    with torch.device("meta"):
        built = networks.build(
            network,
            where="network",
            context=NetworkContext(
                action_dim=action_dim, horizon=horizon, obs_dim=obs_dim, n_obs_steps=n_obs_steps
            ),
        )
    assert round(sum(p.numel() for p in built.parameters()) / 1e6, 1) == count


def test_image_encoder_is_a_resnet18_of_11_million() -> None:
    """The paper's encoder: 11 M parameters per camera, no BatchNorm anywhere."""
    with torch.device("meta"):
        encoder = image_encoders.build({"type": "resnet"}, where="image_encoder", channels=3)
    assert 11.0 < sum(p.numel() for p in encoder.parameters()) / 1e6 < 11.4
    assert not [m for m in encoder.modules() if "BatchNorm" in type(m).__name__]


def test_transformer_actions_do_not_see_the_future() -> None:
    """Output t ignores actions after t and observations after t."""
    spec = NetworkContext(action_dim=2, horizon=6, obs_dim=3, n_obs_steps=3)
    torch.manual_seed(0)
    network = networks.build(TRANSFORMER, where="network", context=spec).eval()
    noisy, step, obs = torch.randn(1, 6, 2), torch.tensor([3.0]), torch.randn(1, 3, 3)
    base = network(noisy, step, obs)
    later_action = noisy.clone()
    later_action[:, 4:] += 1
    torch.testing.assert_close(network(later_action, step, obs)[:, :4], base[:, :4])
    later_obs = obs.clone()
    later_obs[:, 2] += 1
    changed = network(noisy, step, later_obs)
    torch.testing.assert_close(changed[:, :2], base[:, :2])
    assert (changed[:, 2:] - base[:, 2:]).abs().min() > 0


def test_padding_is_left_out_of_the_loss_only_if_asked() -> None:
    """With mask_padding, actions in padded steps do not move the loss."""
    for mask in (True, False):
        spec = example_spec()
        torch.manual_seed(0)
        # The MLP mixes time steps, so the padded actions are equal in the input and differ in the target only.
        policy = build_policy(config(MLP, mask_padding=mask), spec, example_stats(spec))
        batch = example_batch(spec)
        torch.manual_seed(1)
        base = policy.compute_loss(batch).loss
        padded = {**batch, "action_is_pad": torch.zeros_like(batch["action_is_pad"])}
        torch.manual_seed(1)
        other = policy.compute_loss(padded).loss
        assert bool(base != other) == mask


def test_actions_come_back_in_physical_units_within_the_data_bounds() -> None:
    """Clipped sampling never leaves the range of the training actions."""
    spec = example_spec()
    policy = build_policy(config(MLP), spec, example_stats(spec)).eval()
    for parameter in policy.parameters():
        parameter.data.mul_(20)
    actions = policy.predict_chunk(observation_of(example_batch(spec))).actions
    assert actions.min() >= -10.001
    assert actions.max() <= 30.001


def test_sampler_can_be_swapped_at_inference() -> None:
    """One checkpoint, several samplers, and the number of network calls is that of the sampler."""
    spec = example_spec()
    policy = build_policy(config(UNET, {"type": "diffusion"}), spec, example_stats(spec)).eval()
    observation = observation_of(example_batch(spec))
    for sampler, calls in (
        ({"type": "ddpm", "steps": 100}, 100),
        ({"type": "dpmpp_2m", "steps": 5}, 5),
        (None, 4),
    ):
        assert policy.predict_chunk(observation, sampler=sampler, generator=seeds(6)).n_network_calls == calls


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": {"type": "unet"}}, "did you mean 'unet1d'"),
        ({"network": {**UNET, "down_dim": [8]}}, "did you mean 'down_dims'"),
        ({"network": {**UNET, "down_dims": [16, 32, 64, 128, 256]}}, "divisible by 16"),
        ({"network": {**UNET, "down_dims": [12, 32]}}, "not divisible by n_groups"),
        ({"process": {"type": "edm", "sigma_min": 3.0, "sigma_max": 1.0}}, "sigma_min < sigma_max"),
        ({"normalization": {"default": "minmax"}}, "did you mean 'min_max'"),
        ({"normalization": {"observation.stat": "identity"}}, "did you mean 'observation.state'"),
        ({"netwrok": {}}, "did you mean 'network'"),
        ({"normalization": {"action": "z_score"}}, "would cut actions that are not min-max normalised"),
    ],
)
def test_bad_configuration_is_explained(change: dict, message: str) -> None:
    """Every bad value ends in one line with the rule or the nearest match."""
    spec = example_spec()
    with pytest.raises(ConfigError, match=message):
        build_policy({**config(UNET), **change}, spec, example_stats(spec))


def test_spec_refuses_impossible_horizons() -> None:
    """More executed than predicted steps is an error that says how many there are."""
    action = Feature(dtype="float32", shape=(2,))
    with pytest.raises(SpecError, match="exceeds the 7 predicted steps"):
        PolicySpec(observation={}, action=action, n_obs_steps=2, horizon=8, n_action_steps=8, fps=10)


def test_spec_round_trips_and_compares() -> None:
    """A spec survives JSON, and a task without its features is refused by name."""
    spec = example_spec(images=True)
    assert PolicySpec.from_dict(spec.to_dict()) == spec
    offered = {**spec.observation, ACTION: spec.action}
    spec.require(offered, fps=10.0, who="task 'x'")
    del offered["observation.state"]
    with pytest.raises(SpecError, match=r"task 'x' does not fit the policy: observation\.state is missing"):
        spec.require(offered, fps=10.0, who="task 'x'")
    with pytest.raises(SpecError, match="rate is 20 Hz, expected 10 Hz"):
        spec.require({**spec.observation, ACTION: spec.action}, fps=20.0, who="task 'x'")


def test_constant_components_are_not_blown_up() -> None:
    """A component that never moved in training is shifted, not scaled."""
    spec = example_spec()
    stats = example_stats(spec)
    stats["observation.state"]["min"][1] = stats["observation.state"]["max"][1] = 7.0
    policy = build_policy(config(MLP), spec, stats)
    assert isinstance(policy, NetworkPolicy)
    feature = policy.normalizer["observation.state"]
    normalised = feature.normalize(torch.tensor([-10.0, 7.5, 30.0]))
    torch.testing.assert_close(normalised, torch.tensor([-1.0, 0.5, 1.0]))


def test_spatial_softmax_finds_a_peak() -> None:
    """A sharp peak in the top right corner is at x = 1, y = -1."""
    layer = SpatialSoftmax(1, 1)
    torch.nn.init.constant_(layer.heat.weight, 100.0)
    image = torch.zeros(1, 1, 5, 7)
    image[0, 0, 0, 6] = 1.0
    torch.testing.assert_close(layer(image), torch.tensor([[[1.0, -1.0]]]), atol=1e-4, rtol=0)


def test_crops_are_random_in_training_and_centred_otherwise() -> None:
    """Each image of a batch gets its own crop, made of the image's own pixels."""
    torch.manual_seed(0)
    image = torch.arange(20 * 20, dtype=torch.float32).view(1, 1, 20, 20).repeat(64, 1, 1, 1)
    centred = crop_images(image, 0.9, random=False)
    assert centred.shape == (64, 1, 18, 18)
    assert bool((centred[:, 0, 0, 0] == 21).all())
    corners = crop_images(image, 0.9, random=True)[:, 0, 0, 0]
    assert {int(c) for c in corners} <= {r * 20 + c for r in range(3) for c in range(3)}
    assert corners.unique().numel() > 4
