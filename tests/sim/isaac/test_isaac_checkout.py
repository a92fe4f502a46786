"""IsaacGymEnvs' own task files, unmodified; they need a checkout, named by ROBOT_POLICIES_ISAACGYMENVS."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from robot_sim.isaac.checkout import load_config, task_class
from robot_sim.isaac.errors import IsaacError

CHECKOUT = os.environ.get("ROBOT_POLICIES_ISAACGYMENVS", "")
needs_checkout = pytest.mark.skipif(
    not CHECKOUT, reason="ROBOT_POLICIES_ISAACGYMENVS does not name a checkout of isaac-sim/IsaacGymEnvs"
)

# One process per task, as Isaac Gym needs too: the files keep state in module globals.
RUN = """
import sys, torch
from robot_sim.isaac.checkout import make_task
checkout, name, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
torch.manual_seed(0)
task = make_task(checkout, name, num_envs=4)
resets = 0
for _ in range(steps):
    observation, reward, reset, extras = task.step(2 * torch.rand(4, task.num_actions) - 1)
    assert torch.isfinite(observation["obs"]).all() and torch.isfinite(reward).all()
    assert not task.sim.physics.diverged.any()
    resets += int(reset.sum())
print(tuple(observation["obs"].shape), resets)
"""

REACH = """
import sys, torch
from robot_sim.isaac.checkout import make_task
torch.manual_seed(0)
task = make_task(sys.argv[1], "FrankaCubeStack", num_envs=4)
task.step(torch.zeros(4, 7))
start = task.states["eef_pos"].clone()
action = torch.zeros(4, 7)
action[:, 1] = 1.0
for _ in range(30):
    task.step(action)
moved = task.states["eef_pos"] - start
assert (moved[:, 1] > 0.1).all(), moved
assert (moved[:, [0, 2]].abs() < 0.05).all(), moved
cube = task.states["cubeA_pos"][:, 2] - task.reward_settings["table_height"] - 0.025
assert cube.abs().max() < 2e-3, cube
print("arrived")
"""


def _run(code: str, *arguments: str) -> str:
    command = [sys.executable, "-W", "ignore", "-c", code, CHECKOUT, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@needs_checkout
@pytest.mark.parametrize(
    ("name", "steps", "shape"),
    [
        ("Cartpole", 600, (4, 4)),
        ("Ant", 300, (4, 60)),
        ("Humanoid", 200, (4, 108)),
        ("Anymal", 200, (4, 48)),
        ("FrankaCabinet", 200, (4, 23)),
        ("FrankaCubeStack", 320, (4, 19)),
    ],
)
def test_task_files_run_unmodified(name, steps, shape):
    """Random actions for some hundred steps give finite observations and rewards, and no physics diverges."""
    assert _run(RUN, name, str(steps)).splitlines()[-1].startswith(str(shape))


@needs_checkout
def test_operational_space_control_moves_the_tool_where_it_is_told():
    """FrankaCubeStack's controller, from our Jacobian and inertia, moves the tool along y and nowhere else."""
    assert _run(REACH).split()[-1] == "arrived"


@needs_checkout
def test_the_cabinets_drawer_is_the_last_joint():
    """The task reads the upper drawer as joint 3, which holds in the order of names only."""
    code = (
        "import sys; from robot_sim.isaac.checkout import make_task; t = make_task(sys.argv[1], 'FrankaCabinet',"
        " num_envs=1); print(t.gym.get_actor_dof_names(t.envs[0], 1)[3])"
    )
    assert _run(code).split()[-1] == "drawer_top_joint"


@needs_checkout
def test_an_unknown_task_is_named():
    """With the nearest match."""
    with pytest.raises(IsaacError, match="did you mean 'Cartpole'"):
        task_class(CHECKOUT, "Cartpol")


@needs_checkout
def test_configurations_are_composed_by_hydra():
    """The checkout's own configuration, with overrides, for the CPU."""
    config = load_config(CHECKOUT, "Ant", num_envs=7, overrides=["task.env.episodeLength=5"])
    assert config["task"]["env"]["numEnvs"] == 7
    assert config["task"]["env"]["episodeLength"] == 5
    assert config["task"]["sim"]["use_gpu_pipeline"] is False


def test_a_folder_without_tasks_is_no_checkout(tmp_path: Path):
    """The message says what was looked for."""
    with pytest.raises(IsaacError, match="no checkout of IsaacGymEnvs"):
        task_class(tmp_path, "Ant")
