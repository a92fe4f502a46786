"""From action chunks to actions: the executors that simulation and the robot share.

Importing this package registers them all.
"""

from robot_policies.execution import ensemble, real_time
from robot_policies.execution.executor import ChunkExecutor, Continuation, build_executor, executors

__all__ = ["ChunkExecutor", "Continuation", "build_executor", "ensemble", "executors", "real_time"]
