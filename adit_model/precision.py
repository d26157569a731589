"""Which precision of matrix products is the faster one on a device."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Literal

import torch

Precision = Literal["float32", "bfloat16"]

# bf16 is several times as fast where the processor has instructions for it, and far slower than
# float32 elsewhere: with this margin, what else the machine does cannot change the answer.
MARGIN = 1.2


@lru_cache(maxsize=8)
def faster_precision(device: torch.device) -> Precision:
    """The faster of float32 and bf16 for products of the denoiser's size, by a short timing.

    The answer is one a process and device, and the same on every machine of a kind.
    """
    seconds = {dtype: _best_seconds(device, dtype) for dtype in (torch.float32, torch.bfloat16)}
    faster = seconds[torch.bfloat16] * MARGIN < seconds[torch.float32]
    return "bfloat16" if faster else "float32"


def _best_seconds(device: torch.device, dtype: torch.dtype, tries: int = 7) -> float:
    """Of a product; the best of several, as other programs can only make one slower."""
    x = torch.ones(256, 256, device=device, dtype=dtype)
    weights = torch.ones(1024, 256, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(tries):
        start = time.perf_counter()
        (x @ weights.T)[0, 0].item()  # waits for a GPU
        best = min(best, time.perf_counter() - start)
    return best
