"""Hydra configuration of the command line, as package data: YAML only."""
