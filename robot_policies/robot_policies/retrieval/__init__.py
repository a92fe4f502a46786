"""Behavior retrieval: which parts of a large, mixed dataset to train on for a task with few demonstrations."""
