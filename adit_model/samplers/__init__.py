"""Samplers: a request, step rules, guidance, steering, and the run over batches of equal size.

Add a sampler as one entry of `steps.SAMPLERS`.
"""

from adit_model.samplers.guidance import Guided
from adit_model.samplers.particles import Steering
from adit_model.samplers.request import Request, SamplingSettings
from adit_model.samplers.run import sample_latents
from adit_model.samplers.steps import SAMPLERS, Sampler, time_points

__all__ = [
    "SAMPLERS",
    "Guided",
    "Request",
    "Sampler",
    "SamplingSettings",
    "Steering",
    "sample_latents",
    "time_points",
]
