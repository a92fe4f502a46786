"""The modules that `install_shim` offers, what they refuse, and the command that runs scripts on them."""

import importlib
import subprocess
import sys

import numpy as np
import pytest
import torch

import robot_sim.isaac
from robot_sim.isaac.errors import IsaacError, UnsupportedCallError
from robot_sim.isaac.gym import ALTERNATIVES
from robot_sim.isaac.shim import shim

SCRIPT = """
import sys
from isaacgym import gymapi, gymtorch, gymutil
gym = gymapi.acquire_gym()
params = gymapi.SimParams()
params.dt, params.up_axis, params.gravity = 0.02, gymapi.UP_AXIS_Z, gymapi.Vec3(0, 0, -10)
sim = gym.create_sim(0, -1, gymapi.SIM_PHYSX, params)
ball = gym.create_sphere(sim, 0.1, gymapi.AssetOptions())
env = gym.create_env(sim, gymapi.Vec3(), gymapi.Vec3(), 1)
gym.create_actor(env, ball, gymapi.Transform(p=gymapi.Vec3(0, 0, 9)), "ball", 0, 0)
gym.prepare_sim(sim)
state = gymtorch.wrap_tensor(gym.acquire_actor_root_state_tensor(sim))
for _ in range(50):
    gym.simulate(sim)
gym.refresh_actor_root_state_tensor(sim)
print(sys.argv[1], round(float(state[0, 9]), 3))
"""


def test_nothing_is_importable_before_it_is_asked_for():
    """Importing the package alone registers no `isaacgym`."""
    code = (
        "import robot_sim.isaac, importlib.util as u; raise SystemExit(u.find_spec('isaacgym') is not None)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_modules_come_and_go():
    """Inside the block the usual imports work; after it they are gone."""
    with shim():
        from isaacgym import gymapi, gymtorch, gymutil, torch_utils  # type: ignore[import-not-found]

        assert gymapi.DOF_MODE_EFFORT == 3
        assert gymapi.UP_AXIS_Z == 1
        assert gymapi.acquire_gym() is gymapi.acquire_gym()
        tensor = torch.zeros(3)
        assert gymtorch.wrap_tensor(gymtorch.unwrap_tensor(tensor)).data_ptr() == tensor.data_ptr()
        assert gymutil.parse_device_str("cuda:1") == ("cuda", 1)
        half = torch.tensor([[0.0, 0.0, 0.5**0.5, 0.5**0.5]])
        turned = torch_utils.quat_rotate(half, torch.tensor([[1.0, 0.0, 0.0]]))
        torch.testing.assert_close(turned, torch.tensor([[0.0, 1.0, 0.0]]), atol=1e-6, rtol=0)
    assert "isaacgym" not in sys.modules


def test_a_real_isaacgym_is_not_shadowed(tmp_path, monkeypatch):
    """With a package of that name on the path the shim refuses and says where it is."""
    (tmp_path / "isaacgym").mkdir()
    (tmp_path / "isaacgym" / "__init__.py").write_text("", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    with pytest.raises(IsaacError, match="not shadowed"):
        robot_sim.isaac.install_shim()
    assert "isaacgym" not in sys.modules


def test_unsupported_calls_name_themselves_and_the_way_out(gym):
    """Looking one up is harmless, calling it says what to do; every alternative is one line."""
    call = gym.create_rigid_body_attractor
    with pytest.raises(UnsupportedCallError, match=r"gym\.create_rigid_body_attractor.*<connect>"):
        call(None, None)
    with pytest.raises(NotImplementedError, match=r"gym\.no_such_call"):
        gym.no_such_call()
    assert all("\n" not in text for text in ALTERNATIVES.values())


def test_viewer_calls_do_nothing_and_say_so_once(gym, caplog, monkeypatch):
    """The first call about pictures is logged, the others are silent."""
    monkeypatch.setattr("robot_sim.isaac.gym_viewer.ViewerCalls._told", False)
    assert gym.create_viewer(None, None) is None
    gym.add_lines(None, None, 1, [], [])
    assert [record.message for record in caplog.records if "do nothing" in record.message][1:] == []
    assert "gym.create_viewer" in caplog.text


def test_a_gpu_pipeline_is_refused(gym):
    """Tensors are on the CPU, and the message says how to ask for that."""
    from robot_sim.isaac.parameters import SimParams

    params = SimParams()
    params.use_gpu_pipeline = True
    with pytest.raises(IsaacError, match="use_gpu_pipeline=False"):
        gym.create_sim(0, 0, 0, params)


def test_scripts_run_on_the_command_line(tmp_path):
    """`python -m robot_sim.isaac run` gives a script the modules and its arguments; a ball falls at g."""
    script = tmp_path / "fall.py"
    script.write_text(SCRIPT, encoding="utf-8")
    command = [sys.executable, "-m", "robot_sim.isaac", "run", str(script), "speed"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["speed", "-10.0"]


def test_a_missing_script_is_one_line(tmp_path, capsys):
    """Status 2 and the name of the script."""
    from robot_sim.isaac.__main__ import main

    assert main(["run", str(tmp_path / "none.py")]) == 2
    assert "none.py" in capsys.readouterr().err


def test_torch_functions_agree_with_scipy():
    """Euler angles and products of random rotations are SciPy's."""
    from scipy.spatial.transform import Rotation

    from robot_sim.isaac import torch_functions as functions

    a, b = (Rotation.random(20, rng=np.random.default_rng(seed)) for seed in (0, 1))
    qa, qb = torch.from_numpy(a.as_quat()), torch.from_numpy(b.as_quat())
    product = Rotation.from_quat(functions.quat_mul(qa, qb).numpy())
    np.testing.assert_allclose(product.as_matrix(), (a * b).as_matrix(), atol=1e-12)
    euler = torch.stack(functions.get_euler_xyz(qa), dim=-1).numpy()
    np.testing.assert_allclose(Rotation.from_euler("xyz", euler).as_matrix(), a.as_matrix(), atol=1e-9)
    back = functions.quat_from_euler_xyz(*(torch.from_numpy(column) for column in euler.T))
    np.testing.assert_allclose(Rotation.from_quat(back.numpy()).as_matrix(), a.as_matrix(), atol=1e-9)
