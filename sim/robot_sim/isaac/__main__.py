"""``python -m robot_sim.isaac run SCRIPT [ARGUMENTS]``: run a script that imports ``isaacgym`` on MuJoCo."""

from __future__ import annotations

import argparse
import runpy
import sys
from pathlib import Path

from robot_datasets.errors import UserError
from robot_sim.isaac.errors import IsaacError
from robot_sim.isaac.shim import install_shim


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m robot_sim.isaac",
        description="Run code written for Isaac Gym on MuJoCo.",
        epilog="example: python -m robot_sim.isaac run my_task.py --num_envs 16",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run a script with `isaacgym` importable")
    run.add_argument("--max-timestep", type=float, help="longest physics step [s] (0.005)")
    run.add_argument("--threads", type=int, help="threads of the physics (all cores)")
    run.add_argument("script", help="the script")
    run.add_argument("arguments", nargs=argparse.REMAINDER, help="its arguments")
    given = parser.parse_args(arguments)
    try:
        if not Path(given.script).is_file():
            raise IsaacError(f"there is no script {given.script}")
        install_shim(max_timestep=given.max_timestep, threads=given.threads)
        sys.argv = [given.script, *given.arguments]
        sys.path.insert(0, str(Path(given.script).resolve().parent))
        runpy.run_path(given.script, run_name="__main__")
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
