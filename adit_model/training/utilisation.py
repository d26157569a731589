"""How much of what the hardware can calculate a run makes use of."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch.utils.flop_counter import FlopCounterMode

# Steps whose operations are counted, before the first. Counting takes other ways through torch,
# which round otherwise: a resumed run would not be the uninterrupted one. Batches differ in size.
COUNTED = 4
SIDE = {"cpu": 1024, "cuda": 8192}  # of the matrices that the hardware is measured with
TRIES, ENOUGH = 5, 0.5  # seconds; bf16 takes as long for one product on some processors


class FlopMeter:
    """Floating point operations of this process: those of its matrix products, forth and back."""

    def __init__(self, device: torch.device, dtype: torch.dtype, compiled: bool = False) -> None:
        """Measure what the device reaches.

        Args:
            device: that is trained on.
            dtype: of the matrix products.
            compiled: whether layers are compiled, which hides their operations.
        """
        self.best = matrix_product_rate(device, dtype)
        self.compiled = compiled
        self.total, self.steps = 0, 0

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count the operations of a step."""
        eager = torch.compiler.set_stance("force_eager") if self.compiled else nullcontext()
        with eager, FlopCounterMode(display=False) as counter:
            yield
        self.total += counter.get_total_flops()
        self.steps += 1

    def row(self, steps: int, seconds: float) -> dict[str, float]:
        """The rate of so many steps in so many seconds, and its share of the possible one."""
        if not self.steps:
            return {}
        rate = self.total / self.steps * steps / max(seconds, 1e-9)
        return {
            "tflops_per_second": float(f"{rate / 1e12:.4g}"),
            "flop_utilisation": float(f"{rate / self.best:.4g}"),
        }


def matrix_product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating point operations a second in a product of large square matrices, the best of some.

    A product of n by n matrices is 2 n^3 operations.
    """
    side = SIDE.get(device.type, SIDE["cpu"])
    one = torch.randn(side, side, device=device, dtype=dtype)
    out = torch.empty_like(one)
    if device.type != "cpu":
        torch.mm(one, one, out=out)  # the first is slower
    times: list[float] = []
    while len(times) < TRIES and sum(times) < ENOUGH:
        _wait(device)
        begun = time.perf_counter()
        torch.mm(one, one, out=out)
        _wait(device)
        times.append(time.perf_counter() - begun)
    return 2 * side**3 / min(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
