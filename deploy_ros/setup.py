"""ament_python packaging of `robot_deploy`, for colcon only; pip installs it from the root pyproject.toml."""

from glob import glob

from setuptools import find_packages, setup

setup(
    name="robot_deploy",
    version="0.1.0",
    packages=find_packages("src"),
    package_dir={"": "src"},
    package_data={"robot_deploy": ["py.typed", "presets/*/*.yaml"]},
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/robot_deploy"]),
        ("share/robot_deploy", ["package.xml"]),
        ("share/robot_deploy/launch", glob("launch/*.launch.py")),
        ("share/robot_deploy/config/sros2", glob("config/sros2/*.xml")),
    ],
    entry_points={
        "console_scripts": [
            "policy_node = robot_deploy.nodes.policy_node:main",
            "fake_arm_node = robot_deploy.nodes.fake_arm_node:main",
            "surrogate_cell_node = robot_deploy.nodes.surrogate_cell_node:main",
            "twin_node = robot_deploy.nodes.twin_node:main",
            "tracker_node = robot_deploy.nodes.tracker_node:main",
            "recorder_node = robot_deploy.nodes.recorder_node:main",
            "intervention_node = robot_deploy.nodes.intervention_node:main",
        ],
    },
    zip_safe=False,
    maintainer="robot-policies maintainers",
    maintainer_email="maintainers@users.noreply.github.com",
    description="Runs trained robot policies on a robot: lifecycle nodes around a safety filter.",
    license="Apache-2.0",
)
