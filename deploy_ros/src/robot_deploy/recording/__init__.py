"""Recording what happened on a robot, so that it can be trained on, replayed, and believed.

`bag_writer` writes a bag that a killed process leaves readable, `recorder` puts a bounded queue and a thread in front
of it, `recovery` finishes what was cut off, `contract` says what a recording is for and how it becomes a dataset,
`parity` compares that with what the policy was given. None of it needs ROS; `robot_deploy.nodes.recorder_node` carries
messages to it.
"""
