"""The inspect command: a summary on the terminal, and a page of one file."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from robot_datasets.episode import Episode, Segment
from robot_datasets.features import ACTION, STATE, Feature
from robot_datasets.image_codec import encode_frame
from robot_datasets.store import EpisodeStoreWriter
from robot_policies.cli.main import main

HOSTILE = '<script>alert("x")</script>'


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two episodes with all that a page can show: cameras, depth, segments, warnings, flags, a hostile text."""
    path = tmp_path_factory.mktemp("inspect") / "demos.zarr"
    features = {
        STATE: Feature(dtype="float32", shape=(3,), names=("x", "y", "still"), units=("m",)),
        ACTION: Feature(dtype="float32", shape=(2,), meaning="velocity"),
        "next.done": Feature(dtype="bool", shape=(1,)),
        "observation.wide": Feature(dtype="float32", shape=(70,)),
        "observation.images.top": Feature(dtype="uint8", shape=(0, 0, 3)),
        "observation.depth.top": Feature(dtype="uint16", shape=(600, 700, 1)),
    }
    random = np.random.default_rng(0)
    with EpisodeStoreWriter(
        path, features=features, fps=10, embodiment="arm", source={"name": HOSTILE}
    ) as writer:
        writer.quarantine("broken", f"no frames {HOSTILE}")
        for i, n in enumerate((14, 9)):
            state = np.concatenate([random.normal(size=(n, 2)), np.ones((n, 1))], axis=1)
            writer.add_episode(
                Episode(
                    f"e{i}{HOSTILE}",
                    {
                        STATE: state.astype(np.float32),
                        ACTION: random.normal(size=(n, 2)).astype(np.float32),
                        "next.done": np.arange(n)[:, None] == n - 1,
                        "observation.wide": random.normal(size=(n, 70)).astype(np.float32),
                    },
                    {
                        "observation.images.top": [
                            encode_frame(random.integers(0, 256, (20, 30 + i, 3), dtype=np.uint8), "png")
                        ]
                        * n,
                        "observation.depth.top": [
                            encode_frame(random.integers(0, 3000, (600, 700, 1), dtype=np.uint16), "png")
                        ]
                        * n,
                    },
                    task=f"task {HOSTILE}",
                    success=bool(i),
                    segments=[Segment(0, 5, "reach", HOSTILE), Segment(5, n, "", "lift")],
                    warnings=[f"odd {HOSTILE}"],
                )
            )
        writer.publish()
    return path


class _Tags(HTMLParser):
    """Collects tags, attributes and whether every tag that needs one is closed."""

    VOID = ("meta", "img", "br", "path", "polyline", "link", "rect", "line")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(store: Path) -> str:
    """The page of the store."""
    target = store.parent / "page.html"
    assert main(["inspect", str(store), "--html", str(target)]) == 0
    return target.read_text(encoding="utf-8")


def test_the_page_is_well_formed_and_complete(page: str) -> None:
    """All tags are closed, every section is there, and each component has its row."""
    tags = _Tags(page)
    assert tags.open == []
    for title in (
        "What the check found",
        "Frames",
        "Length of episodes",
        "Instructions",
        "Signals",
        "Labelled parts",
    ):
        assert f"<h2>{title}</h2>" in page
    assert "and 6 more components" in page
    images = [attributes for tag, attributes in tags.seen if tag == "img"]
    assert len(images) == 2 * 2 * 5
    assert page.count('aria-label="histogram"') == 2 + 2 + 1 + 64
    assert ">constant<" in page


def test_the_page_needs_nothing_else(page: str) -> None:
    """Nothing is loaded from elsewhere, and texts of the data cannot become markup."""
    tags = _Tags(page)
    for _, attributes in tags.seen:
        for key in ("src", "href"):
            assert (attributes.get(key) or "data:").startswith("data:")
    assert not re.search(r"@import|url\(", page)
    assert HOSTILE not in page
    assert page.count("&lt;script&gt;") >= 6
    assert len([tag for tag, _ in tags.seen if tag == "script"]) == 2


def test_the_page_is_the_same_each_time(store: Path, page: str) -> None:
    """The same store and command give the same page, and no temporary file is left."""
    target = store.parent / "page.html"
    assert main(["inspect", str(store), "--html", str(target)]) == 0
    assert target.read_text(encoding="utf-8") == page
    assert sorted(p.name for p in store.parent.iterdir()) == ["demos.zarr", "page.html"]


def test_the_terminal_shows_what_matters(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Lengths, outcomes, labels, warnings and features are listed; JSON has the same."""
    assert main(["inspect", str(store)]) == 0
    text = capsys.readouterr().out
    for part in ("1 yes, 1 no", "9 ▕", "▏ 14 steps", "23 at 10 Hz", "observation.depth.top", "set aside  1"):
        assert part in text
    assert main(["inspect", str(store), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["n_segments"], summary["n_warnings"], sum(summary["length_histogram"])) == (4, 2, 2)


def test_a_page_needs_a_folder(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A page in a folder that does not exist is an error in one line."""
    assert main(["inspect", str(store), "--html", str(tmp_path / "absent" / "page.html")]) == 2
    assert "absent is no folder; make it first" in capsys.readouterr().err


def test_a_damaged_frame_is_shown_as_such(store: Path, tmp_path: Path) -> None:
    """A frame that cannot be decoded leaves a message in its place, and the page is made."""
    import shutil

    shutil.copytree(store, tmp_path / "s.zarr")
    payload = next((tmp_path / "s.zarr" / "images" / "top" / "bytes").rglob("0"))
    data = bytearray(payload.read_bytes())
    data[60:400] = bytes(340)
    payload.write_bytes(bytes(data))
    assert main(["inspect", str(tmp_path / "s.zarr"), "--html", str(tmp_path / "p.html")]) == 0
    text = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert '<p class="warning">observation.images.top' in text
