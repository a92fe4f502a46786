"""Judging a policy: rollouts on held-out seeds, intervals, latency, videos and one report.

`robot_policies.evaluation.evaluate.evaluate_policy` is the Python entry point. The modules that worker
processes import (episode, workers, observation_history, video) do without torch.
"""
