"""What every test shares: one thread per process, reproducible property tests, the real data's folder."""

import os

# Before anything imports torch or a BLAS: two test processes share two cores, and one thread per process
# also keeps the order of floating-point sums the same everywhere.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LP_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import gc  # noqa: E402
from pathlib import Path  # noqa: E402

import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

REPOSITORY = Path(__file__).resolve().parent.parent

# The same examples in every run; no deadline, because a loaded machine is not a bug.
settings.register_profile(
    "house",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("house")


# Collecting makes millions of objects that stay; looking for garbage among them takes a tenth of the time.
gc.disable()


def pytest_collection_finish() -> None:
    """Collect garbage again, but not what is here to stay."""
    gc.freeze()
    gc.enable()


# Their tests wait for processes more than they compute: begun first, they overlap with everything else instead of
# being what everything waits for at the end.
WAITING = (
    "deploy/test_policy_node.py",
    "deploy/test_twin_node.py",
    "training/test_distributed.py",
    "training/test_resume.py",
    "deploy/test_policy_processes.py",
    "deploy/test_companion_nodes.py",
    "datasets/test_engine_ray.py",
    "datasets/test_full_disk.py",
    "house/test_wheel.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files of `WAITING` first."""
    tests = REPOSITORY / "tests"
    first = [tests / name for name in WAITING]
    items.sort(key=lambda item: first.index(item.path) if item.path in first else len(first))


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real demonstrations, which is no part of the repository; skips when it is absent."""
    folder = Path(os.environ.get("ROBOT_POLICIES_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real demonstrations at {folder}; set ROBOT_POLICIES_TEST_DATA to their folder")
    return folder
