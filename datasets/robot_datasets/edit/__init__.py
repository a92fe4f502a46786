"""Tools that make a new store of old ones: merge, split, trim, drop, rename; `apply` writes what they plan."""

from robot_datasets.edit.drop import drop
from robot_datasets.edit.merge import merge
from robot_datasets.edit.plan import Edit, EditReport, Piece, apply
from robot_datasets.edit.rename import rename
from robot_datasets.edit.split import split
from robot_datasets.edit.trim import trim

__all__ = ["Edit", "EditReport", "Piece", "apply", "drop", "merge", "rename", "split", "trim"]
