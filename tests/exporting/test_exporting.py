"""Exported policies: the same chunks as the checkpoint, without torch, and clear refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robot_policies.checkpoint import LoadedPolicy, load_policy, save_policy
from robot_policies.exporting.export import arrays_of, checkpoint_chunk, export_policy, largest_error
from robot_policies.exporting.graphs import EncoderGraph, NetworkGraph, example_arguments
from robot_policies.exporting.program import ExportError, SamplingProgram
from robot_policies.exporting.runner import ExportedPolicy
from robot_policies.exporting.tracing import network_policy, trace_program
from robot_policies.policies import build_policy
from robot_policies.policy import Policy
from robot_policies.testing import example_spec, example_stats

MLP = {"type": "mlp", "width": 48, "n_blocks": 2}
UNET = {"type": "unet1d", "down_dims": [16, 32], "kernel_size": 3, "step_embed_dim": 16}
TRANSFORMER = {"type": "transformer", "width": 32, "n_layers": 2, "n_heads": 2, "attention_dropout": 0.0}
RESNET = {
    "type": "resnet", "stage_channels": [8, 16], "blocks_per_stage": 1, "n_keypoints": 4, "out_dim": 8
}  # fmt: skip
DIFFUSION = {"type": "diffusion", "train_steps": 20}
EDM, FLOW = {"type": "edm"}, {"type": "flow"}
DDIM = {"type": "ddim", "steps": 4}


def make(config: dict[str, Any], *, images: bool = False, goals: bool = False) -> Policy:
    torch.manual_seed(0)
    spec = example_spec(images=images, goals=goals)
    policy = build_policy(config, spec, example_stats(spec))
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return policy.eval()


def denoiser(process: dict, sampler: dict, network: dict = MLP, **rest: Any) -> dict[str, Any]:
    return {"type": "diffusion", "network": network, "process": process, "sampler": sampler, **rest}


def eager(policy: Policy) -> ExportedPolicy:
    """The runner around the policy's own modules: what is left to differ is the sampling program."""
    inner = network_policy(policy)
    action = inner.normalizer["action"]

    def wrap(module: torch.nn.Module):
        def run(*arrays: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                return module(*(torch.from_numpy(a) for a in arrays)).numpy()

        return run

    return ExportedPolicy(
        spec=inner.spec, program=trace_program(policy, None), about={}, format="eager",
        scale=action.scale.numpy(), offset=action.offset.numpy(),
        encoder=wrap(EncoderGraph(inner)), network=wrap(NetworkGraph(inner)),
    )  # fmt: skip


PROGRAMS: dict[str, dict[str, Any]] = {
    "ddim": denoiser(EDM, DDIM),
    "ddim on ddpm's process": denoiser(DIFFUSION, DDIM),
    "ddim, all noise renewed": denoiser(DIFFUSION, {**DDIM, "eta": 1.0}),
    "ddpm": denoiser(DIFFUSION, {"type": "ddpm", "steps": 20}),
    "predicting v": denoiser({**DIFFUSION, "prediction": "v"}, DDIM),
    "euler on flow": denoiser(FLOW, {"type": "euler", "steps": 5}),
    "euler ancestral": denoiser(EDM, {"type": "euler_ancestral", "steps": 5}),
    "heun": denoiser(EDM, {"type": "heun", "steps": 4}),
    "dpmpp_2m": denoiser(EDM, {"type": "dpmpp_2m", "steps": 6}),
    "dpmpp_2m_sde": denoiser(DIFFUSION, {"type": "dpmpp_2m_sde", "steps": 6}),
    "two_step": denoiser(EDM, {"type": "two_step"}),
    "cold": denoiser(EDM, {**DDIM, "temperature": 0.3}),
    "one step, no clipping": denoiser(FLOW, {"type": "ddim", "steps": 1, "clip": None}),
    "regression": {"type": "regression", "network": MLP},
    "mip": {"type": "regression", "network": MLP, "refine_at": 0.9},
    "regression, not bounded": {
        "type": "regression", "network": MLP, "normalization": {"default": "z_score"}
    },
    "consistency": {
        "type": "consistency", "teacher": "", "student": denoiser(EDM, DDIM),
        "inference": {"type": "consistency", "steps": 3},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_traced_program_is_the_sampler(name: str):
    """Any sampler on any process, as a table of numbers, gives the policy's own chunk for the same noise."""
    policy = make(PROGRAMS[name])
    assert largest_error(policy, eager(policy), None, samples=3) < 2e-5


def test_a_program_survives_its_file(tmp_path: Path):
    """Written to JSON and read again, a program is the same, to the bit."""
    program = trace_program(make(denoiser(EDM, {"type": "dpmpp_2m_sde", "steps": 5})), None)
    assert SamplingProgram.from_dict(json.loads(json.dumps(program.to_dict()))) == program
    assert len(program.calls) == 5


@pytest.mark.parametrize("damage", [{"calls": []}, {"result": [1.0]}, {"n_draws": "x"}, {"clip": "a"}])
def test_a_damaged_program_is_refused(damage: dict[str, Any]):
    """Rows of the wrong length, or no numbers, are named, not run."""
    values = trace_program(make(denoiser(EDM, DDIM)), None).to_dict()
    with pytest.raises(ExportError, match="export the policy again"):
        SamplingProgram.from_dict({**values, **damage})


@pytest.fixture(scope="module")
def lift_like(tmp_path_factory: pytest.TempPathFactory) -> LoadedPolicy:
    """A checkpoint on disk, of an MLP with DDIM."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    config = denoiser(EDM, DDIM)
    policy = make(config)
    save_policy(folder, policy, config={"policy": config}, stats=example_stats(policy.spec), dataset_card={})
    return load_policy(folder)


@pytest.fixture(scope="module")
def exported(lift_like: LoadedPolicy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That checkpoint, exported as ONNX and TorchScript."""
    pytest.importorskip("onnxscript", reason="the extra 'export' is not installed")
    folder = tmp_path_factory.mktemp("exports") / "policy"
    export_policy(lift_like, folder, formats=("onnx", "torchscript"))
    return folder


@pytest.mark.parametrize("format", ["onnx", "torchscript"])
def test_an_exported_folder_gives_the_checkpoints_chunks(format: str, exported: Path, lift_like):
    """Twenty random inputs, given the same noise: within a hundred-thousandth of the action range."""
    runner = ExportedPolicy.load(exported, format=format)
    assert largest_error(lift_like.policy, runner, None, samples=20) < 2e-5
    assert runner.about["checkpoint_sha256"] == lift_like.sha256
    assert runner.about["largest_error"][format] < 2e-5


def test_the_runner_needs_no_torch(exported: Path, lift_like: LoadedPolicy, tmp_path: Path):
    """In a process in which torch, zarr and scipy cannot be imported, the chunk is the checkpoint's."""
    inputs, _ = example_arguments(network_policy(lift_like.policy), seed=5)
    noise, ours = checkpoint_chunk(lift_like.policy, inputs, None, n_draws=1, seed=5)
    seen, _ = arrays_of(network_policy(lift_like.policy), inputs)
    arrays: dict[str, Any] = {"noise": noise, **seen}
    np.savez(tmp_path / "in.npz", **arrays)
    script = f"""
import sys
for name in ("torch", "zarr", "scipy", "safetensors", "onnx", "yaml"):
    sys.modules[name] = None
import numpy as np
from robot_policies.exporting.runner import ExportedPolicy
given = dict(np.load({str(tmp_path / "in.npz")!r}))
noise = given.pop("noise")
np.save({str(tmp_path / "out.npy")!r}, ExportedPolicy.load({str(exported)!r}).predict(given, noise=noise))
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), ours, atol=5e-4)


def test_the_runner_checks_what_it_is_given(exported: Path):
    """Missing, misshapen and non-finite observations, wrong noise and no noise are refused, each by name."""
    runner = ExportedPolicy.load(exported)
    rng = np.random.default_rng(0)
    good = {n: np.zeros((2, *f.shape), np.float32) for n, f in runner.spec.observation.items()}
    chunk = runner.predict(good, rng=rng)
    assert chunk.shape == (8, 2)
    assert chunk.dtype == np.float32
    state = "observation.state"
    for bad, match in (
        ({}, "is missing"),
        ({**good, state: np.zeros((1, 3))}, "has shape"),
        ({**good, state: np.full((2, 3), np.nan)}, "NaN"),
    ):
        with pytest.raises(ExportError, match=match):
            runner.predict(bad, rng=rng)
    with pytest.raises(ExportError, match="noise has shape"):
        runner.predict(good, noise=np.zeros((2, 8, 2)))
    with pytest.raises(ExportError, match="needs noise"):
        runner.predict(good)


def test_a_changed_folder_is_refused(exported: Path, tmp_path: Path):
    """A graph that was cut off, a folder of something else, and a format that is not there."""
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(exported, copy)
    with pytest.raises(ExportError, match="not exported as 'aotinductor'"):
        ExportedPolicy.load(copy, format="aotinductor")
    graph = copy / "network.onnx"
    graph.write_bytes(graph.read_bytes()[:-10])
    with pytest.raises(ExportError, match=r"network\.onnx is missing, truncated or changed"):
        ExportedPolicy.load(copy)
    with pytest.raises(ExportError, match=r"holds no manifest\.json"):
        ExportedPolicy.load(tmp_path)


@pytest.mark.parametrize(
    ("network", "images"), [(UNET, True), (TRANSFORMER, False)], ids=["unet with a camera", "transformer"]
)
def test_larger_networks_export(network: dict, images: bool, tmp_path: Path):
    """Convolutions, attention and an image encoder; benchmarks/export_latency.py does the same with ONNX."""
    policy = make(denoiser(EDM, DDIM, network, image_encoder=RESNET if images else None), images=images)
    loaded = LoadedPolicy(
        policy=policy, config={}, spec=policy.spec, stats={}, dataset_card={}, sha256="", path=tmp_path
    )
    errors = export_policy(loaded, tmp_path / "out", formats=["torchscript"], parity_samples=3)
    assert errors["torchscript"] < 2e-5
    for graph, arguments in zip(
        (EncoderGraph(network_policy(policy)), NetworkGraph(network_policy(policy))),
        example_arguments(network_policy(policy)),
        strict=True,
    ):
        torch.export.export(graph, arguments)  # what ONNX and AOTInductor begin with


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"type": "energy", "network": {"type": "energy_mlp", "width": 16, "n_blocks": 1}}, "gradient"),
        ({"type": "implicit", "network": {"type": "energy_mlp", "width": 16, "n_blocks": 1}}, "gradient"),
    ],
)
def test_policies_that_need_gradients_say_so(config: dict[str, Any], match: str):
    """Energy policies are refused in one line that says what they need and what to do."""
    with pytest.raises(ExportError, match=match) as error:
        trace_program(make(config), None)
    assert "with torch" in str(error.value)
    assert "\n" not in str(error.value)


def test_other_refusals():
    """Instructions, diffusers' schedulers, and a sampler for a policy without one."""
    instructed = make({**denoiser(EDM, DDIM), "goal_encoder": {"type": "tokens"}}, goals=True)
    with pytest.raises(ExportError, match="instruction"):
        trace_program(instructed, None)
    with pytest.raises(ExportError, match="diffusers"):
        trace_program(make(denoiser(DIFFUSION, DDIM)), {"type": "diffusers", "steps": 4})
    with pytest.raises(ExportError, match="no sampler"):
        trace_program(make(PROGRAMS["mip"]), DDIM)


def test_nothing_is_left_of_a_failed_export(lift_like: LoadedPolicy, tmp_path: Path, monkeypatch):
    """A writer that fails leaves neither the folder nor a part of it; an existing folder is not touched."""
    from robot_policies.exporting import graphs

    def fail(*_: object) -> None:
        raise ExportError("disk full")

    monkeypatch.setitem(graphs.WRITERS, "torchscript", fail)
    with pytest.raises(ExportError, match="disk full"):
        export_policy(lift_like, tmp_path / "out", formats=("torchscript",))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ExportError, match="choose a new folder"):
        export_policy(lift_like, tmp_path, formats=("torchscript",))
