"""``robot-policies deploy``: check a deployment, run its policy node, or see it all with a simulated arm."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robot_datasets.errors import UserError
from robot_policies.cli.arguments import add_json, command_parser

_DEMO_FOLDER = Path("runs/deploy_demo")
_TWIN_FOLDER = Path("runs/deploy_twin")


def run(argv: Sequence[str]) -> int:
    """Carry out one of the subcommands; 0 on success."""
    arguments = _parser().parse_args(list(argv))
    return int(arguments.run(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "deploy",
        "Run a policy on a robot under ROS 2. Read docs/deploy.md before the first hour with a real arm.",
        "examples:\n"
        "  robot-policies deploy demo --episodes 5\n"
        "  robot-policies deploy twin runs/push --seconds 60\n"
        "  robot-policies deploy presets\n"
        "  robot-policies deploy check my_cell.yaml\n"
        "  robot-policies deploy run my_cell.yaml --mode dry_run",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    demo = commands.add_parser("demo", help="a simulated arm and a policy, as processes, without ros2 launch")
    demo.add_argument("--checkpoint", help="a policy for the task lift_joint; trained first if left out")
    demo.add_argument("--deployment", default="demo", help="preset or YAML file (default: demo)")
    demo.add_argument("--episodes", type=int, default=3, metavar="N")
    demo.add_argument("--mode", default="live", choices=("live", "dry_run", "shadow"))
    demo.add_argument(
        "--realtime", type=int, default=0, metavar="P", help="SCHED_FIFO priority, 1 to 99; 0 for none"
    )
    demo.add_argument("--logs", type=Path, default=_DEMO_FOLDER / "logs", help="folder of the nodes' logs")
    demo.add_argument(
        "--record", type=Path, metavar="DIR", help="record all episodes there, for 'robot-policies convert'"
    )
    add_json(demo)
    demo.set_defaults(run=_demo)
    twin = commands.add_parser(
        "twin", help="a policy in a twin, and a simulated arm that follows, as processes"
    )
    twin.add_argument("checkpoint", help="a policy for the cell's task")
    twin.add_argument("--cell", default="tabletop_push_t", help="cell that comes along, or a YAML file")
    twin.add_argument("--deployment", default="twin_demo", help="preset or YAML file (default: twin_demo)")
    twin.add_argument("--seed", type=int, default=100_000, help="episode of the simulated cell")
    twin.add_argument("--seconds", type=float, default=30.0, metavar="S", help="how long at most")
    twin.add_argument("--logs", type=Path, default=_TWIN_FOLDER / "logs", help="folder of the nodes' logs")
    add_json(twin)
    twin.set_defaults(run=_twin)
    presets = commands.add_parser("presets", help="list the robots, targets and deployments that come along")
    add_json(presets)
    presets.set_defaults(run=_presets)
    check = commands.add_parser("check", help="read a deployment and say what it allows; needs no ROS")
    check.add_argument("deployment", help="preset or YAML file")
    add_json(check)
    check.set_defaults(run=_check)
    node = commands.add_parser("run", help="start the policy node of a deployment, unconfigured")
    node.add_argument("deployment", help="preset or YAML file")
    node.add_argument("--mode", choices=("dry_run", "shadow", "tracker", "live"))
    node.add_argument("--checkpoint", help="replaces the deployment's")
    node.add_argument(
        "--realtime", type=int, default=0, metavar="P", help="SCHED_FIFO priority of the commands"
    )
    node.set_defaults(run=_run)
    return parser


def _demo(arguments: argparse.Namespace) -> int:
    from robot_deploy.demo import DemoConfig, run_demo

    if arguments.episodes < 1:
        raise UserError(f"--episodes is {arguments.episodes}, expected at least 1")
    checkpoint = arguments.checkpoint or _trained()

    def tell(seed: int, lifted: bool, seconds: float) -> None:
        if not arguments.json:
            print(f"  seed {seed}: {'lifted' if lifted else 'not lifted'} after {seconds:.1f} s", flush=True)

    config = DemoConfig(
        checkpoint=checkpoint,
        deployment=arguments.deployment,
        episodes=arguments.episodes,
        mode=arguments.mode,
        realtime_priority=arguments.realtime,
        logs=arguments.logs,
        recordings=arguments.record,
    )
    result = run_demo(config, progress=tell)
    if arguments.json:
        print(json.dumps({**vars(result), "checkpoint": str(checkpoint)}))
        return 0
    print(f"lifted {sum(result.lifted.values())} of {len(result.lifted)}")
    for seed, fault in result.faults.items():
        print(f"  seed {seed} ended in a fault: {fault}")
    for what in (
        "period p50 [ms]",
        "period p99 [ms]",
        "observation_to_command p99 [ms]",
        "overhead p99 [ms]",
    ):
        if what in result.times:
            print(f"  {what}: {result.times[what]}")
    print(
        f"commands beyond a limit: {sum(result.audit['violations'].values())} of {result.audit['samples']:,} samples"
    )
    return 0


def _twin(arguments: argparse.Namespace) -> int:
    from robot_deploy.twin_demo import TwinDemoConfig, run_twin_demo

    if not 0.0 < arguments.seconds <= 3600.0:
        raise UserError(f"--seconds is {arguments.seconds:g}, expected above 0, at most 3600")

    def tell(seconds: float, state: str) -> None:
        if not arguments.json:
            print(f"  {seconds:.0f} s: {state}", flush=True)

    config = TwinDemoConfig(
        checkpoint=arguments.checkpoint,
        cell=arguments.cell,
        deployment=arguments.deployment,
        seed=arguments.seed,
        seconds=arguments.seconds,
        logs=arguments.logs,
    )
    result = run_twin_demo(config, progress=tell)
    if arguments.json:
        print(json.dumps(vars(result)))
        return 0
    print(
        f"{'reached' if result.success else 'not reached'} on the surrogate after {result.seconds:.1f} s, the twin "
        f"waited {100 * result.waited:.0f} %{'; fault: ' + result.fault if result.fault else ''}"
    )
    for name, said in result.twin.items():
        print(
            f"  {name}: {', '.join(f'{key} {value}' if key != 'message' else value for key, value in said.items())}"
        )
    print(
        f"commands beyond a limit: {sum(result.audit['violations'].values())} of {result.audit['samples']:,} samples"
    )
    return 0


def _trained() -> str:
    """The demo's own policy, trained on first use."""
    run = _DEMO_FOLDER / "train"
    if (run / "checkpoints" / "best").exists():
        return str(run)
    demonstrations = _DEMO_FOLDER / "demos.zarr"
    for what, command in (
        (
            "recording demonstrations",
            ["generate", "task=lift_joint", "episodes=160", f"output={demonstrations}"],
        ),
        (
            "training a policy",
            ["train", "+experiment=deploy_demo", f"dataset.path={demonstrations}", f"output_dir={run}"],
        ),
    ):
        print(f"{what}: robot-policies {' '.join(command)}", flush=True)
        done = subprocess.run([sys.executable, "-m", "robot_policies", *command], check=False)
        if done.returncode:
            raise UserError(f"{what} ended with status {done.returncode}; see above")
    return str(run)


def _presets(arguments: argparse.Namespace) -> int:
    from robot_deploy.deployment import deployment_presets
    from robot_deploy.robots import load_robot, preset_names

    robots = {name: load_robot(name).source for name in preset_names("robots")}
    found: dict[str, Any] = {
        "robots": robots,
        "targets": preset_names("targets"),
        "deployments": deployment_presets(),
    }
    if arguments.json:
        print(json.dumps(found))
        return 0
    print("robots:")
    for name, source in robots.items():
        print(f"  {name}: {source}")
    print(f"targets: {', '.join(found['targets'])}\ndeployments: {', '.join(found['deployments'])}")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from robot_deploy.deployment import load_deployment

    config = load_deployment(arguments.deployment)
    limits = config.limits()
    config.check_targets(limits.names)
    runtime = config.runtime_config()
    said = {
        "mode": config.mode,
        "command_rate": runtime.command_rate,
        "topics": [entry.resolve().topic for entry in config.targets],
        "limits": {
            name: {
                key: float(getattr(limits, key)[i])
                for key in ("lower", "upper", "velocity", "acceleration", "jerk")
            }
            for i, name in enumerate(limits.names)
        },
    }
    if arguments.json:
        print(json.dumps(said))
        return 0
    print(f"mode {config.mode}, {runtime.command_rate:g} Hz on {', '.join(said['topics'])}")
    print("joint: lower to upper (margin taken off), velocity, acceleration, jerk; rad or m, s")
    for name, row in said["limits"].items():
        print(
            f"  {name}: {row['lower']:.3f} to {row['upper']:.3f}, {row['velocity']:g}, "
            f"{row['acceleration']:g}, {row['jerk']:g}"
        )
    for name, stream in config.streams.items():
        print(
            f"  {name}: {stream.kind} from {stream.topic or 'kinematics'}, at most {stream.max_age_ms:g} ms old"
        )
    return 0


def _run(arguments: argparse.Namespace) -> int:
    from robot_deploy.nodes import policy_node

    path = arguments.deployment
    if Path(path).suffix in (".yaml", ".yml"):
        path = str(Path(path).absolute())
    parameters = {"deployment": path, "mode": arguments.mode, "checkpoint": arguments.checkpoint}
    ros = ["robot-policies", "--ros-args", "-r", "__node:=policy"]
    for name, value in parameters.items():
        ros += ["-p", f'{name}:="{value}"'] if value else []
    return policy_node.main([*ros, "-p", f"realtime_priority:={arguments.realtime}"])
