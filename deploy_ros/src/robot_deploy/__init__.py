"""Deployment: what stands between a trained policy and a robot.

`robot_deploy.runtime` is all of it without ROS: samples and chunks go in, trajectories that end in a stop come out.
``docs/deploy-core.md`` draws the pipeline and says what is guaranteed. The ROS 2 nodes are not written yet.
"""

__version__ = "0.1.0"
