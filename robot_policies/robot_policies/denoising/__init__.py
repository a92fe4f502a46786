"""Noise processes and samplers; importing this package registers them all."""

from robot_policies.denoising import diffusers_samplers
from robot_policies.denoising.processes import processes
from robot_policies.denoising.samplers import NoiseSource, Sampler, samplers

__all__ = ["NoiseSource", "Sampler", "diffusers_samplers", "processes", "samplers"]
