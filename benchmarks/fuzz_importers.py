"""Damage small sources of every format in thousands of ways and see what the importers make of them.

    python benchmarks/fuzz_importers.py --cases 1000
    python benchmarks/fuzz_importers.py --family aloha --first 17 --cases 1 --verbose

Every case is a copy of a healthy source with one fault in one file, chosen by the case's number, so a case can be
repeated. It is read in a process of its own kind: one that takes longer than the limit is killed and counted as
hanging, one that needs more memory than the limit as defective too. `--cases` are per group of formats (HDF5,
LeRobot, zarr, ...), divided among its families. The verdicts:

    unharmed        all is read as before (the fault hit nothing that is used)
    set aside       the damaged episodes are set aside, each with a reason; the others are as before
    warned          something differs, and a warning says so
    refused         the source as a whole is refused in one line (damage to a file that all episodes share)
    undetectable    other values that are as valid as those before, in a format without checksums
    and the defects: silent, healthy lost, unforeseen, vague, crash, hang, memory
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, replace
from multiprocessing.connection import Connection
from pathlib import Path

from robot_datasets.testing.fuzz_families import FAMILIES
from robot_datasets.testing.fuzzing import DEFECTS, Case, Fuzzer

ADDRESS_SPACE_BYTES = 4 << 30


def serve(connection: Connection, family: str, folder: str, first: int, last: int, memory_bytes: int) -> None:
    """Run in a process: judge cases and send them, stop after one that needed too much memory."""
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    fuzzer = Fuzzer(FAMILIES[family], Path(folder))
    before = peak_bytes()
    connection.send(None)
    for seed in range(first, last):
        case = fuzzer.run(seed)
        needed = peak_bytes() - before
        if needed > memory_bytes and case.verdict not in DEFECTS:
            detail = f"needed {needed / 1e6:.0f} MB; {case.verdict}: {case.detail}"
            case = replace(case, verdict="memory", detail=detail)
        connection.send(case)
        if needed > memory_bytes:
            return  # a peak never sinks again


def peak_bytes() -> int:
    """Peak resident memory of this process (Linux)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run_family(family: str, first: int, last: int, *, seconds: float, memory_bytes: int) -> Iterator[Case]:
    """Yield the judged cases of one family; what kills or blocks its process is a case too."""
    context = multiprocessing.get_context("spawn")
    while first < last:
        folder = tempfile.mkdtemp()
        ours, theirs = context.Pipe()
        process = context.Process(
            target=serve, args=(theirs, family, folder, first, last, memory_bytes), daemon=True
        )
        process.start()
        theirs.close()
        ended = ""
        try:
            if not ours.poll(120) or ours.recv() is not None:
                raise SystemExit(f"{family} could not be started")
            while first < last:
                if not ours.poll(seconds):
                    ended = f"no answer for {seconds:g} s"
                    break
                yield ours.recv()
                first += 1
        except EOFError:
            process.join()
            ended = f"the process ended with {process.exitcode}" if process.exitcode else ""
        process.kill()
        process.join()
        shutil.rmtree(folder, ignore_errors=True)
        if ended:
            verdict = "hang" if "no answer" in ended else "crash"
            yield Case(family, first, "?", "?", "repeat it to see what was done", verdict, ended)
            first += 1


def print_table(counts: dict[str, Counter[str]], cases: dict[str, int]) -> None:
    """Print one row per group as Markdown."""
    columns = ["unharmed", "set aside", "warned", "refused", "undetectable", *DEFECTS]
    print("| formats | cases | " + " | ".join(columns) + " |")
    print("|---|" + "--:|" * (len(columns) + 1))
    for group, found in counts.items():
        print(f"| {group} | {cases[group]:,} | " + " | ".join(f"{found[c]:,}" for c in columns) + " |")


def main() -> int:
    """Run the cases, print defects as they come and a table at the end; 1 if there are defects."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=1000, help="cases per group of formats")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--family", action="append", choices=list(FAMILIES), help="only this one; repeatable")
    parser.add_argument("--seconds", type=float, default=60.0, help="time limit of a case")
    parser.add_argument("--megabytes", type=int, default=400, help="limit on additional memory")
    parser.add_argument("--verbose", action="store_true", help="print every case")
    parser.add_argument("--out", type=Path, help="write all cases here as JSON lines")
    arguments = parser.parse_args()
    families = [FAMILIES[name] for name in arguments.family or FAMILIES]
    sizes = Counter(family.group for family in families)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    done: list[Case] = []
    began = time.monotonic()
    for family in families:
        last = arguments.first + -(-arguments.cases // sizes[family.group])
        limits = {"seconds": arguments.seconds, "memory_bytes": arguments.megabytes << 20}
        for case in run_family(family.name, arguments.first, last, **limits):
            done.append(case)
            counts[family.group][case.verdict] += 1
            if arguments.verbose or case.verdict in DEFECTS:
                where = f"{case.family} {case.seed} [{case.fault}] {case.file}: {case.said}"
                print(f"{case.verdict.upper()} {where}\n    {case.detail}", file=sys.stderr, flush=True)
    print_table(counts, {group: sum(found.values()) for group, found in counts.items()})
    print(f"{len(done):,} cases in {time.monotonic() - began:.0f} s")
    if arguments.out:
        arguments.out.write_text("".join(json.dumps(asdict(case)) + "\n" for case in done), encoding="utf-8")
    return int(any(case.verdict in DEFECTS for case in done))


if __name__ == "__main__":
    sys.exit(main())
