"""ament_python packaging of `robot_deploy`, for colcon only; pip installs it from the root pyproject.toml."""

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
    ],
    zip_safe=False,
    maintainer="robot-policies maintainers",
    maintainer_email="maintainers@users.noreply.github.com",
    description="Runs trained robot policies on a robot: the core without ROS; the nodes are not written yet.",
    license="Apache-2.0",
)
