"""A person steps in: taking the arm over smoothly, showing what to do, and handing it back.

`handover` turns a leader arm into targets that begin where the arm is, `session` turns buttons into the calls that the
policy node knows. Both are without ROS; the motion itself goes through the policy node's filter.
"""
