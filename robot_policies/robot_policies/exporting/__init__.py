"""Trained policies for machines without torch: graphs, a sampling program, and a runner that needs NumPy only.

`robot_policies.exporting.export` writes the folder (it needs torch), `robot_policies.exporting.runner` runs it.
Nothing is imported here, so that the runner stays free of torch.
"""
