"""Faults of the arrays in HDF5 and Parquet files: types, shapes, lengths, values, links; see `faults`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import h5py

_ABSURD_ROWS = (10**7, 10**9, 10**12)
_WRONG_NUMBERS = (np.nan, np.inf, -np.inf, 1e300)


def _hdf5(change: Callable[[Any, str, Random], str | None]) -> Callable[[Path, Random], str | None]:
    """Make a fault of a change of one dataset, given its file and key."""

    def apply(path: Path, random: Random) -> str | None:
        import h5py

        with h5py.File(path, "r+") as file:
            keys: list[str] = []
            file.visititems(lambda key, node: keys.append(key) if isinstance(node, h5py.Dataset) else None)
            if not keys:
                return None
            key = random.choice(keys)
            said = change(file, key, random)
            return said and f"{key}: {said}"

    return apply


def _replace(file: h5py.File, key: str, values: Any, **how: Any) -> None:
    attributes = dict(file[key].attrs)
    del file[key]
    file.create_dataset(key, data=values, **how)
    file[key].attrs.update(attributes)


def _numbers(file: h5py.File, key: str) -> np.ndarray | None:
    """Return the values if they are numbers in rows."""
    values = file[key][()]  # pyright: ignore[reportIndexIssue]
    if (
        not isinstance(values, np.ndarray)
        or values.ndim == 0
        or values.dtype.kind not in "fiub"
        or not values.size
    ):
        return None
    return values


def _drop(file: h5py.File, key: str, random: Random) -> str | None:
    del random
    del file[key]
    return "removed"


def _become_group(file: h5py.File, key: str, random: Random) -> str | None:
    del random
    del file[key]
    file.create_group(key)
    return "is a group"


def _as_text(file: h5py.File, key: str, random: Random) -> str | None:
    del random
    n = len(file[key]) if file[key].shape else 1  # pyright: ignore
    _replace(file, key, [f"text {i}" for i in range(n)])
    return "is text"


def _as_scalar(file: h5py.File, key: str, random: Random) -> str | None:
    _replace(file, key, random.choice([1.0, 7, "text"]))
    return "is a scalar"


def _as_compound(file: h5py.File, key: str, random: Random) -> str | None:
    del random
    values = _numbers(file, key)
    if values is None:
        return None
    _replace(file, key, np.zeros(len(values), dtype=[("a", "f4"), ("b", "i4")]))
    return "is a compound"


def _as_complex(file: h5py.File, key: str, random: Random) -> str | None:
    del random
    values = _numbers(file, key)
    if values is None:
        return None
    _replace(file, key, values.astype(np.complex64))
    return "is complex"


def _wider(file: h5py.File, key: str, random: Random) -> str | None:
    values = _numbers(file, key)
    if values is None or values.ndim < 2:
        return None
    columns = random.choice([0, values.shape[1] - 1, values.shape[1] + 1, 2 * values.shape[1]])
    shape = (len(values), columns, *values.shape[2:])
    _replace(file, key, np.resize(values, shape))
    return f"has {columns} columns"


def _another_rank(file: h5py.File, key: str, random: Random) -> str | None:
    values = _numbers(file, key)
    if values is None:
        return None
    changed = random.choice([values.reshape(-1), values[..., None], values[None], values[0]])
    if changed.shape == values.shape:
        return None
    _replace(file, key, changed)
    return f"has shape {changed.shape}"


def _another_length(file: h5py.File, key: str, random: Random) -> str | None:
    dataset: Any = file[key]
    if not dataset.shape or not dataset.shape[0]:
        return None
    n = dataset.shape[0]
    length = random.choice([0, 1, max(0, n - 1), n + 1, 3 * n])
    rows = [dataset[i % n] for i in range(length)]
    kind, tail = dataset.dtype, dataset.shape[1:]
    del file[key]
    made: Any = file.create_dataset(key, shape=(length, *tail), dtype=kind)
    for i, row in enumerate(rows):
        made[i] = row
    return f"has {length} rows" if length != n else None


def _wrong_number(file: h5py.File, key: str, random: Random) -> str | None:
    values = _numbers(file, key)
    if values is None or values.dtype.kind != "f":
        return None
    wrong = random.choice(_WRONG_NUMBERS)
    if not np.isfinite(values.dtype.type(wrong)) or wrong > np.finfo(values.dtype).max:
        wrong = np.nan if np.isnan(wrong) else np.inf * np.sign(wrong)
    values.reshape(-1)[random.randrange(values.size)] = wrong
    file[key][...] = values  # pyright: ignore
    return f"holds {wrong}"


def _absurd(file: h5py.File, key: str, random: Random) -> str | None:
    dataset: Any = file[key]
    kind, tail = dataset.dtype, dataset.shape[1:]
    rows = random.choice(_ABSURD_ROWS)
    del file[key]
    chunk = (1024, *(max(1, n) for n in tail))
    file.create_dataset(key, shape=(rows, *tail), dtype=kind, chunks=chunk)
    return f"claims {rows} rows"


def _bomb(file: h5py.File, key: str, random: Random) -> str | None:
    values = _numbers(file, key)
    if values is None or values.ndim > 2:
        return None
    del random
    del file[key]
    file.create_dataset(
        key, data=np.zeros((400_000, *values.shape[1:]), values.dtype), chunks=True, compression="gzip"
    )
    return "unpacks to 400,000 rows of zeros"


def _linked_out(file: h5py.File, key: str, random: Random) -> str | None:
    import h5py

    del file[key]
    target = random.choice(["/etc/passwd", "other.hdf5", "../../../other.hdf5"])
    file[key] = h5py.ExternalLink(target, "/data")
    return f"links to {target}"


def _linked_in_a_circle(file: h5py.File, key: str, random: Random) -> str | None:
    import h5py

    del random
    del file[key]
    file[key] = h5py.SoftLink(f"/{key}")
    return "links to itself"


HDF5_FAULTS = {
    "array removed": _hdf5(_drop),
    "group for array": _hdf5(_become_group),
    "text for numbers": _hdf5(_as_text),
    "scalar for rows": _hdf5(_as_scalar),
    "compound for numbers": _hdf5(_as_compound),
    "complex for numbers": _hdf5(_as_complex),
    "columns": _hdf5(_wider),
    "rank": _hdf5(_another_rank),
    "rows": _hdf5(_another_length),
    "not finite": _hdf5(_wrong_number),
    "absurd size": _hdf5(_absurd),
    "bomb": _hdf5(_bomb),
    "external link": _hdf5(_linked_out),
    "circle of links": _hdf5(_linked_in_a_circle),
}
"""Faults of one dataset."""


def _parquet(
    change: Callable[[Any, str, Random], tuple[Any, str] | None],
) -> Callable[[Path, Random], str | None]:
    """Make a fault of a change of a table, given the name of one column."""

    def apply(path: Path, random: Random) -> str | None:
        import pyarrow.parquet as pq

        table = pq.read_table(path)
        name = random.choice(table.column_names)
        changed = change(table, name, random)
        if changed is None:
            return None
        pq.write_table(changed[0], path)
        return f"column {name}: {changed[1]}"

    return apply


def _set_column(table: Any, name: str, values: list[Any], kind: Any = None) -> Any:
    import pyarrow as pa

    index = table.column_names.index(name)
    return table.set_column(index, name, pa.array(values, type=kind))


def _column_dropped(table: Any, name: str, random: Random) -> tuple[Any, str] | None:
    del random
    return (table.drop_columns([name]), "removed") if table.num_columns > 1 else None


def _column_of_text(table: Any, name: str, random: Random) -> tuple[Any, str]:
    del random
    return _set_column(table, name, ["text"] * table.num_rows), "is text"


def _column_of_nulls(table: Any, name: str, random: Random) -> tuple[Any, str]:
    return _set_column(
        table, name, [None] * table.num_rows, table[name].type
    ), f"is null ({random.random():.0f})"


def _one_null(table: Any, name: str, random: Random) -> tuple[Any, str] | None:
    values = table[name].to_pylist()
    if not values:
        return None
    row = random.randrange(len(values))
    values[row] = None
    return _set_column(table, name, values, table[name].type), f"row {row} is null"


def _one_wrong(table: Any, name: str, random: Random) -> tuple[Any, str] | None:
    """NaN or infinity in one place, or a number far off."""
    import pyarrow as pa

    values, kind = table[name].to_pylist(), table[name].type
    if not values:
        return None
    row = random.randrange(len(values))
    wrong = random.choice([float("nan"), float("inf"), float("-inf")])
    if pa.types.is_floating(kind):
        values[row] = wrong
    elif isinstance(values[row], list) and values[row] and isinstance(values[row][0], float):
        values[row] = [wrong, *values[row][1:]]
    elif pa.types.is_integer(kind):
        wrong = random.choice([-1, 2**31 - 1, 10**6])
        values[row] = wrong
    else:
        return None
    return _set_column(table, name, values, kind), f"row {row} holds {wrong}"


def _lists_differ(table: Any, name: str, random: Random) -> tuple[Any, str] | None:
    import pyarrow as pa

    values, kind = table[name].to_pylist(), table[name].type
    if not values or not isinstance(values[0], list):
        return None
    row = random.randrange(len(values))
    values[row] = random.choice([[], values[row][:-1], [*values[row], *values[row]]])
    return _set_column(
        table, name, values, pa.list_(kind.value_type)
    ), f"row {row} has {len(values[row])} values"


def _rows_change(table: Any, name: str, random: Random) -> tuple[Any, str] | None:
    import pyarrow as pa

    n = table.num_rows
    how = random.choice(["none", "all but the last", "twice", "shuffled", "one removed"])
    if n < 3:
        how = "none"
    middle = random.randrange(1, max(2, n - 1))
    order = random.sample(range(n), n)
    changed = {
        "none": lambda: table.slice(0, 0),
        "all but the last": lambda: table.slice(0, n - 1),
        "twice": lambda: pa.concat_tables([table, table]),
        "shuffled": lambda: table.take(order),
        "one removed": lambda: pa.concat_tables([table.slice(0, middle), table.slice(middle + 1)]),
    }[how]()
    return changed, f"(all) rows: {how}"


PARQUET_FAULTS = {
    "column removed": _parquet(_column_dropped),
    "text for numbers": _parquet(_column_of_text),
    "nulls": _parquet(_column_of_nulls),
    "one null": _parquet(_one_null),
    "wrong number": _parquet(_one_wrong),
    "lists differ": _parquet(_lists_differ),
    "rows": _parquet(_rows_change),
}
"""Faults of a table."""
