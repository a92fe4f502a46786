"""ROS 2 around the deployment core: only these modules import rclpy.

The parts that every node is built from: `environment` (discovery, environment of child processes), `process`
(signals and spinning), `guarded` (callbacks that cannot end the node), `qos`, `stamps` and `parameters`.
"""
