"""The policy in a process of its own: observations and chunks in shared memory, a socket to say when.

A network that computes for 80 ms must not keep an emergency stop waiting, nor may its crash take the commands
along. `client` is the node's side, `worker` the other, `block` the memory between them.
"""
