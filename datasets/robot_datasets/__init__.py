"""Robot demonstrations: the episode store, importers, statistics, windows and checks (no torch needed)."""

__version__ = "0.1.0"
