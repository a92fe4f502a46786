"""Episodes for the rerun viewer."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from robot_datasets.episode import Episode, Segment
from robot_datasets.features import ACTION, STATE, Feature
from robot_datasets.image_codec import encode_frame
from robot_datasets.store import EpisodeStoreWriter
from robot_policies.cli.main import main


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two short episodes with a PNG, a raw and a depth camera, and a labelled part."""
    path = tmp_path_factory.mktemp("view") / "demos.zarr"
    features = {
        STATE: Feature(dtype="float32", shape=(2,), names=("x", "y")),
        ACTION: Feature(dtype="float32", shape=(2,)),
        "observation.images.top": Feature(dtype="uint8", shape=(6, 8, 3)),
        "observation.images.raw": Feature(dtype="uint8", shape=(4, 4, 3)),
        "observation.depth.top": Feature(dtype="uint16", shape=(6, 8, 1)),
    }
    random = np.random.default_rng(0)
    encodings = {"observation.images.raw": "raw"}
    with EpisodeStoreWriter(
        path, features=features, fps=10, embodiment="arm", image_encodings=encodings
    ) as writer:
        for i in range(2):
            values = random.normal(size=(5, 2)).astype(np.float32)
            colour = random.integers(0, 256, (5, 6, 8, 3), dtype=np.uint8)
            depth = random.integers(0, 2000, (5, 6, 8, 1), dtype=np.uint16)
            writer.add_episode(
                Episode(
                    f"e{i}",
                    {STATE: values, ACTION: values},
                    {
                        "observation.images.top": (encode_frame(f, "png") for f in colour),
                        "observation.images.raw": (bytes(48) for _ in range(5)),
                        "observation.depth.top": (encode_frame(f, "png") for f in depth),
                    },
                    task="pick",
                    segments=[Segment(1, 4, "reach", "reaches out")],
                )
            )
        writer.publish()
    return path


def _rerun(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "rerun", "rrd", *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout + done.stderr


def test_saved_episodes_open_in_rerun(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each episode is one file, which rerun itself finds sound, with every signal and camera in it."""
    pytest.importorskip("rerun", reason="needs the extra 'viz' (rerun-sdk)")
    target = tmp_path / "demo.rrd"
    assert main(["view", str(store), "--episode", "0-1", "--save", str(target)]) == 0
    assert "demo-000001.rrd" in capsys.readouterr().out
    files = sorted(tmp_path.iterdir())
    assert [f.name for f in files] == ["demo-000000.rrd", "demo-000001.rrd"]
    assert "verified without error" in _rerun("verify", *map(str, files))
    content = _rerun("print", "-vv", str(files[1]))
    for path in (
        "/signals/observation/state",
        "/signals/action",
        "/cameras/observation/images/top",
        "/cameras/observation/images/raw",
        "/cameras/observation/depth/top",
        "/segments",
        "/instruction",
    ):
        assert path in content


def test_a_damaged_frame_leaves_no_file(store: Path, tmp_path: Path) -> None:
    """An episode that cannot be read ends in an error and leaves nothing half written."""
    pytest.importorskip("rerun", reason="needs the extra 'viz' (rerun-sdk)")
    import shutil

    shutil.copytree(store, tmp_path / "s.zarr")
    payload = next((tmp_path / "s.zarr" / "depth" / "top" / "bytes").rglob("0"))
    payload.write_bytes(bytes(payload.stat().st_size))
    assert main(["view", str(tmp_path / "s.zarr"), "--save", str(tmp_path / "x.rrd")]) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["s.zarr"]


def test_the_viewer_gets_one_recording_per_episode(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --save the viewer is opened for each episode that was asked for; the first one by default."""
    rerun = pytest.importorskip("rerun", reason="needs the extra 'viz' (rerun-sdk)")
    opened: list[str] = []

    def spawn(recording, **options):
        opened.append(recording.get_recording_id())

    monkeypatch.setattr(rerun.RecordingStream, "spawn", spawn)
    assert main(["view", str(store)]) == 0
    assert main(["view", str(store), "--episode", "0,1"]) == 0
    assert opened == [f"demos.zarr/{i:06d}-e{i}" for i in (0, 0, 1)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--episode", "2"], "no episode 2; the store has 0 to 1"),
        (["--save", "x.mp4"], "expected a name that ends in .rrd"),
        (["--save", "absent/x.rrd"], "absent is no folder"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], message: str, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong numbers and names end with status 2 and one line."""
    assert main(["view", str(store), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_without_rerun_the_extra_is_named(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where rerun is not installed, one line says how to install it."""
    monkeypatch.setitem(sys.modules, "rerun", None)
    assert main(["view", str(store), "--save", str(tmp_path / "x.rrd")]) == 2
    assert 'pip install "robot-policies[viz]"' in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
