"""Schemas: YAML files that say what the arrays of a robot mean."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from robot_datasets import schemas
from robot_datasets.episode import EpisodeError
from robot_datasets.errors import DatasetError
from robot_datasets.exporters import exporter_names
from robot_datasets.importers import importer_names
from robot_datasets.schemas import Part, assemble, find_schema, load_schema, schema_names, schemas_of
from robot_datasets.schemas.reading import SchemaError
from robot_datasets.shared_layout import check_layout


def _values() -> dict[str, Any]:
    """A valid schema."""
    return {
        "robot": "arm",
        "format": "robomind",
        "labels": ["my arm"],
        "summary": "an arm",
        "cameras": {"top": {"source": "images/top"}},
        "features": {
            "observation.state": {
                "parts": [
                    {
                        "source": "q",
                        "columns": [0, 3],
                        "names": ["joint1", "...", "joint3"],
                        "units": "rad",
                    },
                    {"source": "q", "columns": [3, 4], "names": ["gripper"], "gripper": "0=open,1=closed"},
                ]
            }
        },
        "actions": {"next": {"shift": 1, "parts": [{"source": "q", "names": ["a1", "a2", "a3", "a4"]}]}},
        "default_action": "next",
        "delta_mask": [True, True, True, False],
        "layout": {"right_arm": ["a1", "...", "a3"], "right_gripper": ["a4"]},
    }


def _write(path: Path, values: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", schema_names())
def test_built_in_schemas_are_consistent(name: str) -> None:
    """Every file loads, belongs to an importer, describes all its features, and fits the shared layout."""
    schema = load_schema(name)
    for feature in schema.features:
        assert schema.feature(feature).dtype
    for choice in schema.actions:
        assert schema.action(choice).meaning
        assert len(schema.mask(choice)) == schema.actions[choice].size
    check_layout(schema)
    assert pickle.loads(pickle.dumps(schema)) == schema


def test_built_in_labels_select_one_schema() -> None:
    """No label of a format selects two schemas."""
    for schema in map(load_schema, schema_names()):
        for label in schema.labels:
            assert find_schema(schema.format, label.upper().replace("_", " ")) == schema


def test_a_schema_describes_its_features(tmp_path: Path) -> None:
    """Names are filled in, units are spread over components, and the polarity is the feature's."""
    schema = load_schema(_write(tmp_path / "arm.yaml", _values()))
    state = schema.feature("observation.state")
    assert state.names == ("joint1", "joint2", "joint3", "gripper")
    assert state.units == ("rad", "rad", "rad", "")
    assert state.gripper == "0=open,1=closed"
    action = schema.action()
    assert (action.shape, action.meaning) == ((4,), "next")
    assert schema.name == "arm"
    assert schema.layout["right_arm"] == ("a1", "a2", "a3")


def test_assemble_puts_parts_side_by_side() -> None:
    """Parts are cut from flattened steps, in the order of the schema; each source is read once."""
    reads = []
    arrays = {"q": np.arange(12.0).reshape(3, 2, 2), "g": np.arange(3)}

    def read(key: str) -> np.ndarray:
        reads.append(key)
        return arrays[key]

    parts = [
        Part(source="q", columns=(2, 4)),
        Part(source="g", names=("g",)),
        Part(source="q", columns=(0, 1)),
    ]
    np.testing.assert_array_equal(assemble(parts, read), [[2, 3, 0, 0], [6, 7, 1, 4], [10, 11, 2, 8]])
    assert reads == ["q", "g"]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 2)), "q has 2 components per step, expected at least 4"),
        (np.zeros(()), "expected \\(T, D\\) numbers"),
        (np.array([["a"] * 4]), "expected \\(T, D\\) numbers"),
        (np.zeros((2, 4)), "arrays differ in length: q 2, p 3"),
    ],
)
def test_assemble_refuses_what_does_not_fit(array: np.ndarray, message: str) -> None:
    """Too narrow, not numeric, or of another length: an episode error that names the array."""
    arrays = {"q": array, "p": np.zeros((3, 1))}
    parts = [Part(source="q", columns=(0, 4)), Part(source="p", names=("x",))]
    with pytest.raises(EpisodeError, match=message):
        assemble(parts, arrays.__getitem__)


def test_assemble_keeps_an_empty_array_two_dimensional() -> None:
    """An array without rows gives (0, D)."""
    assert assemble([Part(source="q")], lambda key: np.zeros((0, 3))).shape == (0, 3)


def _without(key: str) -> Any:
    return lambda values: values.pop(key)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without("robot"), "arm.yaml: robot: missing"),
        (lambda v: v.update(colour=1), "arm.yaml: unknown key 'colour'"),
        (lambda v: v.update(name="x"), "name: not a field"),
        (lambda v: v.update(labels=[]), "labels: expected at least one"),
        (lambda v: v.update(fps=-1), "fps: -1; expected a positive rate"),
        (lambda v: v.update(fps="fast"), "arm.yaml: fps: expected float"),
        (lambda v: v.update(default_action="nxt"), "did you mean 'next'"),
        (lambda v: v.update(actions={}), "actions: empty"),
        (lambda v: v["cameras"]["top"].update(channels="grb"), "cameras.top.channels: unknown order 'grb'"),
        (lambda v: v["cameras"]["top"].update(sorce="x"), "cameras.top: unknown key 'sorce'; did you mean 'source'"),
        (lambda v: v["features"].update({"action": {"parts": [{"source": "q"}]}}), "low-dimensional feature"),
        (lambda v: v["features"]["observation.state"].update(rotation="quat"), "rotation: unknown convention"),
        (lambda v: v["features"]["observation.state"].update(dtype="f4"), "dtype: unknown type"),
        (lambda v: v["features"]["observation.state"].update(parts=[]), "parts: empty"),
        (lambda v: v["features"]["observation.state"]["parts"][1].update(columns=[4, 4]), r"columns: \[4, 4\]"),
        (lambda v: v["features"]["observation.state"]["parts"][1].update(names=["joint1"]), "joint1 is named twice"),
        (lambda v: v["features"]["observation.state"]["parts"][1].pop("names"), "3 names for 4 components"),
        (lambda v: v["features"]["observation.state"]["parts"][0].update(units=["rad", "m"]), "2 units for 3"),
        (lambda v: v["features"]["observation.state"]["parts"][0].update(gripper="1=open,0=closed"), "polarity"),
        (lambda v: v["features"]["observation.state"]["parts"][0].update(names=["a", "...", "c"]), "stands between"),
        (lambda v: v.update(delta_mask=[True]), "delta_mask: 1 values for the 4 components"),
        (lambda v: v["layout"].update(right_arm=["a9"]), "layout.right_arm: unknown component 'a9'"),
        (lambda v: v["layout"].update(left_arm=["a1"]), "placed twice"),
    ],
)  # fmt: skip
def test_every_mistake_is_named_with_file_and_field(change: Any, message: str, tmp_path: Path) -> None:
    """A wrong file is refused with one line that says where and what."""
    values = _values()
    change(values)
    with pytest.raises(SchemaError, match=message) as caught:
        load_schema(_write(tmp_path / "arm.yaml", values))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("robot: a\nrobot: b\n", "'robot' is given twice, the second time in line 2"),
        ("- a\n- b\n", "holds list, expected a mapping"),
        ("robot: [a\n", "is not valid YAML"),
        ("a: !!python/object:os.system {}\n", "is not valid YAML"),
        ("", "holds NoneType, expected a mapping"),
    ],
)
def test_a_file_that_is_no_schema_is_refused(text: str, message: str, tmp_path: Path) -> None:
    """Repeated keys, lists, broken YAML and Python objects are errors in one line."""
    path = tmp_path / "arm.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SchemaError, match=message):
        load_schema(path)


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    """Schemas are cached by the time of the file."""
    path = _write(tmp_path / "arm.yaml", _values())
    first = load_schema(path)
    import os

    _write(path, _values() | {"robot": "other"})
    os.utime(path, ns=(1, 1))
    assert (first.robot, load_schema(path).robot) == ("arm", "other")
    assert first.digest != load_schema(path).digest


def test_own_files_come_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder named in the environment adds schemas, and its labels go before the built-in ones."""
    _write(tmp_path / "my_arm.yaml", _values() | {"labels": ["h5_franka_3rgb", "my arm"]})
    monkeypatch.setenv(schemas.FOLDERS_VARIABLE, str(tmp_path))
    assert "my_arm" in schema_names()
    assert find_schema("robomind", "My-Arm").robot == "arm"
    assert find_schema("robomind", "h5_franka_3rgb").name == "my_arm"
    assert schemas_of("robomind")[0].name == "my_arm"
    monkeypatch.setenv(schemas.FOLDERS_VARIABLE, str(tmp_path / "absent"))
    with pytest.raises(DatasetError, match="which is no folder"):
        schema_names()


def test_two_schemas_of_one_label_are_ambiguous(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A label of two own files is an error that names both."""
    for name in ("a", "b"):
        _write(tmp_path / f"{name}.yaml", _values())
    monkeypatch.setenv(schemas.FOLDERS_VARIABLE, str(tmp_path))
    with pytest.raises(DatasetError, match=r"selects several schemas \(a, b\)"):
        find_schema("robomind", "my arm")


@pytest.mark.parametrize(
    "lookup",
    [
        lambda: load_schema("pushd"),
        lambda: find_schema("diffusion_policy_zarr", "pushd"),
        lambda: load_schema("pusht").feature("observation.stat"),
        lambda: load_schema("pusht").action("targe"),
    ],
)
def test_unknown_names_come_with_the_nearest(lookup: Any) -> None:
    """A misspelt schema, label, feature or action is an error with a suggestion."""
    with pytest.raises(DatasetError, match="did you mean"):
        lookup()


def test_the_documented_example_is_valid(tmp_path: Path) -> None:
    """The schema in the documentation can be copied into a file as it is."""
    page = Path(__file__).parents[2] / "docs" / "datasets" / "schemas.md"
    example = page.read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
    (tmp_path / "ur5e.yaml").write_text(example, encoding="utf-8")
    schema = load_schema(tmp_path / "ur5e.yaml")
    check_layout(schema)
    assert schema.action().names[-1] == "gripper"


def test_the_index_of_formats_is_complete() -> None:
    """The page of the datasets lists every importer and exporter."""
    page = (Path(__file__).parents[2] / "docs" / "datasets" / "README.md").read_text(encoding="utf-8")
    for name in (*importer_names(), *exporter_names()):
        assert f"`{name}`" in page


def _places(value: Any) -> list[tuple[Any, Any]]:
    """All (container, key) pairs within nested mappings and lists."""
    keys = (
        list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    )
    return [(value, key) for key in keys] + [place for key in keys for place in _places(value[key])]


def test_mutated_files_end_in_one_line(tmp_path: Path) -> None:
    """Whatever is put anywhere in a schema, it loads or is refused with one line; nothing else is raised."""
    random = np.random.default_rng(0)
    odd = [
        None,
        "",
        "...",
        0,
        -1,
        3.5,
        float("nan"),
        True,
        [],
        {},
        [[]],
        [None],
        {"a": 1},
        "x" * 300,
        10**30,
        ["..."],
    ]
    refused = []
    for _ in range(200):
        values = _values()
        for _ in range(int(random.integers(1, 4))):
            places = _places(values)
            container, key = places[random.integers(len(places))]
            if random.random() < 0.2:
                del container[key]
            else:
                container[key] = odd[random.integers(len(odd))]
        try:
            schema = load_schema(_write(tmp_path / f"{random.integers(2**62)}.yaml", values))
            check_layout(schema)
        except DatasetError as error:
            refused.append(str(error))
        else:
            for name in schema.features:
                assert schema.feature(name).shape
    assert 100 < len(refused) < 200
    assert not any("\n" in text for text in refused)


@pytest.mark.parametrize("format", sorted({load_schema(name).format for name in schema_names()}))
def test_the_schemas_of_a_format_are_all_that_name_it(format: str) -> None:
    """Files of other formats are passed over by their text; none may be missed by that."""
    expected = {name for name in schema_names() if load_schema(name).format == format}
    assert {schema.name for schema in schemas_of(format)} == expected
