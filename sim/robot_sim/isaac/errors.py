"""Errors of the Isaac Gym interface."""

from __future__ import annotations

from robot_datasets.errors import UserError


class IsaacError(UserError):
    """An asset, a scene or a tensor is not what Isaac Gym's interface needs here."""


class UnsupportedCallError(IsaacError, NotImplementedError):
    """A call of Isaac Gym that has no counterpart here."""
