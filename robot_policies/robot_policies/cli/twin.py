"""``robot-policies twin``: the digital twin of a cell: check, calibrate, record, evaluate, run, look."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robot_datasets.errors import UserError
from robot_policies.cli.arguments import add_json, command_parser

if TYPE_CHECKING:
    from robot_sim.twin.cell import Cell
    from robot_sim.twin.cell_log import CellLog


def run(argv: Sequence[str]) -> int:
    """Carry out one of the subcommands; 0 on success."""
    arguments = _parser().parse_args(list(argv))
    return int(arguments.run(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "twin",
        "The digital twin of a cell: a simulation that is kept in step with it. Read docs/twin.md for what it cannot\n"
        "see. Where a cell is needed and there is none, a surrogate stands in: a second simulation with parameters of\n"
        "its own. What works with it is not thereby true of a robot.",
        "examples:\n"
        "  robot-policies twin check tabletop_push_t\n"
        "  robot-policies twin surrogate tabletop_push_t --episodes 20 --output logs\n"
        "  robot-policies twin calibrate tabletop_push_t logs/* --output my_cell.yaml\n"
        "  robot-policies twin record my_cell.yaml logs/* --camera topview --output demos.zarr\n"
        "  robot-policies twin eval my_cell.yaml runs/a runs/b --starts 50\n"
        "  robot-policies twin run my_cell.yaml runs/a --episodes 5\n"
        "  robot-policies twin view my_cell.yaml --log logs/0000 --save cell.rrd",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, function: Any, text: str, *, logs: str = "") -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        command.add_argument("cell", help="a cell that comes along, or a YAML file")
        if logs:
            command.add_argument("logs", nargs=logs, type=Path, help="recordings of the cell")
        command.set_defaults(run=function)
        return command

    add_json(add("check", _check, "read a cell file, build its scene and say what is in it"))
    surrogate = add("surrogate", _surrogate, "record a scripted demonstrator at a surrogate of the cell")
    surrogate.add_argument("--episodes", type=int, default=20, metavar="N")
    surrogate.add_argument("--seconds", type=float, default=8.0, help="length of a recording [8]")
    surrogate.add_argument("--seed", type=int, default=0, help="first seed [0]")
    surrogate.add_argument("--output", type=Path, required=True, help="folder of the recordings")
    calibrate = add("calibrate", _calibrate, "find masses, frictions, stiffness and latencies", logs="+")
    calibrate.add_argument("--object", help="whose mass and friction; needed if there are several")
    calibrate.add_argument("--pieces", type=int, default=40, help="pieces of recordings compared [40]")
    calibrate.add_argument("--rounds", type=int, default=7, help="rounds of the search [7]")
    calibrate.add_argument("--output", type=Path, required=True, help="the cell file to write")
    add_json(calibrate)
    record = add("record", _record, "turn recordings into demonstrations, states from the twin", logs="+")
    record.add_argument(
        "--camera", action="append", default=[], help="a viewpoint to render; may be repeated"
    )
    record.add_argument("--size", type=int, default=96, help="side of the scene's cameras' pictures [96]")
    record.add_argument("--output", type=Path, required=True, help="the episode store to write")
    _add_policies(add)
    view = add("view", _view, "open a cell, and a recording of it, in the rerun viewer")
    view.add_argument("--log", type=Path, help="a recording to play")
    view.add_argument("--save", type=Path, help="write this .rrd file instead of opening the viewer")
    return parser


def _add_policies(add: Any) -> None:
    """The two commands that take trained policies."""
    for name, function, text in (
        ("eval", _eval, "rank policies in parallel futures of the twin"),
        ("run", _run, "let a policy act in the twin while the arm of a surrogate follows"),
    ):
        command = add(name, function, text)
        command.add_argument(
            "checkpoints", nargs="+" if name == "eval" else 1, help="run or checkpoint folders"
        )
        command.add_argument("--steps", type=int, help="policy steps [the task's limit]")
        add_json(command)
        if name == "eval":
            command.add_argument("--starts", type=int, default=50, help="the task's held-out starts [50]")
            command.add_argument("--log", type=Path, help="start where the twin is in this recording instead")
            command.add_argument("--at", type=float, default=1.0, help="seconds into the recording [1]")
        else:
            command.add_argument("--episodes", type=int, default=1, metavar="N")
            command.add_argument("--seed", type=int, help="first seed [the task's first held-out one]")


def _check(arguments: argparse.Namespace) -> int:
    from robot_sim.twin.cell import load_cell
    from robot_sim.twin.twin import Twin

    cell = load_cell(arguments.cell)
    twin = Twin(cell)
    twin.tick()
    said = {
        "cell": cell.name,
        "objects": {name: {"mass": o.mass, "friction": o.friction} for name, o in cell.objects.items()},
        "cameras": sorted(cell.cameras),
        "twin_hz": cell.rates.twin,
        "correction": dict(cell.correction),
        "uncertainty": dict(cell.uncertainty),
    }
    if arguments.json:
        print(json.dumps(said))
        return 0
    print(
        f"cell {cell.name}: task {cell.task['name']}, {len(cell.robot.joints)} joints, twin at {cell.rates.twin:g} Hz"
    )
    for name, known in cell.objects.items():
        print(f"  {name}: {known.mass:g} kg, friction {known.friction:g}, {known.motion}")
    print(f"cameras: {', '.join(sorted(cell.cameras)) or 'none'}; correction: {cell.correction['type']}")
    print("calibrated" if cell.uncertainty else "not calibrated: parameters are what somebody wrote down")
    return 0


def _surrogate(arguments: argparse.Namespace) -> int:
    from robot_sim.twin.cell import load_cell
    from robot_sim.twin.cell_log import write_log
    from robot_sim.twin.recording import record_pushes
    from robot_sim.twin.surrogate import SurrogateConfig

    if arguments.episodes < 1 or not 0.5 <= arguments.seconds <= 600:
        raise UserError(
            f"--episodes {arguments.episodes}, --seconds {arguments.seconds:g}; expected at least 1, and 0.5 to 600"
        )
    cell = load_cell(arguments.cell)
    if cell.task["name"] != "tabletop_push_t":
        raise UserError(
            f"the scripted demonstrator knows tabletop_push_t only, this cell is {cell.task['name']}"
        )
    arguments.output.mkdir(parents=True, exist_ok=True)
    for index in range(arguments.episodes):
        target = arguments.output / f"{arguments.seed + index:04d}"
        if target.exists():  # an interrupted command continues
            continue
        log = record_pushes(cell, SurrogateConfig(), seed=arguments.seed + index, seconds=arguments.seconds)
        write_log(log, target, cell=cell.name)
        print(f"{target}: {arguments.seconds:g} s of a surrogate", flush=True)
    return 0


def _logs(arguments: argparse.Namespace, cell: Cell) -> list[tuple[str, CellLog]]:
    from robot_sim.twin.cell_log import read_log

    return [(path.name, read_log(path, cell=cell.name)) for path in arguments.logs]


def _calibrate(arguments: argparse.Namespace) -> int:
    from robot_sim.twin.cell import load_cell, write_cell
    from robot_sim.twin.identify import IdentificationConfig, identify

    cell = load_cell(arguments.cell)
    body = arguments.object or next(iter(cell.objects))
    if body not in cell.objects or (arguments.object is None and len(cell.objects) > 1):
        raise UserError(f"--object: expected one of {', '.join(cell.objects)}")
    logs = [log for _, log in _logs(arguments, cell)]

    def tell(done: int, total: int, loss: float) -> None:
        if not arguments.json:
            print(f"  round {done} of {total}: residual over noise {loss:.2f}", flush=True)

    found = identify(
        cell,
        logs,
        body,
        IdentificationConfig(pieces=arguments.pieces, rounds=arguments.rounds),
        progress=tell,
    )
    write_cell(found.cell, arguments.output, comment=f"{cell.name}, calibrated on {len(logs)} recordings.")
    if arguments.json:
        print(json.dumps({"parameters": dict(found.parameters), "uncertainty": dict(found.uncertainty)}))
        return 0
    for name, value in found.parameters.items():
        unit = "s" if name == "command_latency" else "times what the cell file said"
        print(f"{name}: {value:.3f} ± {found.uncertainty[name]:.3f} {unit}")
    print(
        f"residual over noise: {found.loss_before:.2f} before, {found.loss:.2f} now\nwritten: {arguments.output}"
    )
    return 0


def _record(arguments: argparse.Namespace) -> int:
    from robot_sim.twin.cell import load_cell
    from robot_sim.twin.demonstrations import write_demonstrations

    cell = load_cell(arguments.cell)
    store = write_demonstrations(
        cell,
        _logs(arguments, cell),
        arguments.output,
        cameras=arguments.camera,
        size=arguments.size,
        progress=lambda done, total: print(f"  {done} of {total}", flush=True),
    )
    print(f"{store.path}: {store.n_episodes} episodes, {store.n_steps} steps, states from the twin")
    return 0


def _eval(arguments: argparse.Namespace) -> int:
    from robot_policies.cli.twin_policies import evaluate_in_twin

    return evaluate_in_twin(arguments)


def _run(arguments: argparse.Namespace) -> int:
    from robot_policies.cli.twin_policies import run_in_twin

    return run_in_twin(arguments)


def _view(arguments: argparse.Namespace) -> int:
    from robot_sim.twin.cell import load_cell
    from robot_sim.twin.cell_log import read_log
    from robot_sim.twin.rerun_view import view_cell

    if arguments.save is not None and arguments.save.suffix != ".rrd":
        raise UserError(f"--save got '{arguments.save}'; expected a name that ends in .rrd")
    cell = load_cell(arguments.cell)
    log = None if arguments.log is None else read_log(arguments.log, cell=cell.name)
    view_cell(cell, log, save=arguments.save)
    if arguments.save is not None:
        print(f"saved: {arguments.save}; open it with: rerun {arguments.save}")
    return 0
