"""Simulated tasks, scripted experts and vectorised environments."""

__version__ = "0.1.0"
