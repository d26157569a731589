"""CPU time of one equivariant message, in plain torch and with e3nn's tensor product.

    python benchmarks/equivariant_layer.py --json benchmarks/results/equivariant_layer.json

Both send scalars and vectors of as many channels along the same pairs, forward and backward, in one
thread: ours by attention over dense arrays of pairs (`adit_model.equivariant`), e3nn's by the
products of l <= 1 along a list of edges, weighted by a small network of the distances, as NequIP
and Equiformer do. e3nn 0.4.4, which mace-torch asks for, is imported with `slice` allowed to
torch's loader, without which it does not load with torch 2.6 or newer.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sample_quality import write_json
from torch import Tensor, nn

from adit_model.equivariant.geometry import Pairs
from adit_model.equivariant.layers import EquivariantAttention

RADIAL = 16


def median_ms(call: Callable[[], Any], times: int) -> float:
    """CPU milliseconds of a call."""
    seconds = []
    for _ in range(times + 2):
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return round(1000 * float(np.median(seconds[2:])), 1)  # the first calls compile


def ours(num: int, atoms: int, width: int, vectors: int) -> tuple[nn.Module, Callable[[], None]]:
    """The layer, and a call of it forward and backward."""
    layer = EquivariantAttention(width, vectors, 4, RADIAL)
    scalars = torch.randn(num, atoms, width, requires_grad=True)
    arrows = torch.randn(num, 3, atoms, vectors, requires_grad=True)
    pairs = Pairs(
        torch.ones(num, atoms, atoms),
        torch.rand(num, atoms, atoms, RADIAL),
        torch.randn(num, 3, atoms, atoms, RADIAL),
    )

    def call() -> None:
        first, second = layer(scalars, arrows, pairs, None)
        (first.sum() + second.sum()).backward()

    return layer, call


def with_e3nn(
    num: int, atoms: int, width: int, vectors: int
) -> tuple[nn.Module, Callable[[], None]]:
    """The same of e3nn's tensor product, a network of the distances and a linear map."""
    torch.serialization.add_safe_globals([slice])
    from e3nn import o3
    from e3nn.nn import FullyConnectedNet

    inside, edge = o3.Irreps(f"{width}x0e+{vectors}x1e"), o3.Irreps("1x0e+1x1e")
    instructions: list[tuple[int, int, int, str, bool]] = []
    outside: list[tuple[int, Any]] = []
    for i, (channels, first) in enumerate(inside):
        for j, (_, second) in enumerate(edge):
            for product in (each for each in first * second if each.l <= 1):
                instructions.append((i, j, len(outside), "uvu", True))
                outside.append((channels, product))
    product_of = o3.TensorProduct(
        inside, edge, o3.Irreps(outside), instructions, shared_weights=False, internal_weights=False
    )
    radial = FullyConnectedNet([RADIAL, 2 * RADIAL, product_of.weight_numel], nn.functional.silu)
    linear = o3.Linear(o3.Irreps(outside), inside)
    features = torch.randn(num * atoms, inside.dim, requires_grad=True)
    place = torch.arange(num * atoms).view(num, atoms)
    shape = (num, atoms, atoms)
    to, source = (p.expand(shape).flatten() for p in (place[:, :, None], place[:, None]))
    ways = o3.spherical_harmonics(edge, torch.randn(len(to), 3), normalize=True)
    distances = torch.rand(len(to), RADIAL)

    def call() -> None:
        messages: Tensor = product_of(features[source], ways, radial(distances))
        total = messages.new_zeros(num * atoms, messages.shape[1]).index_add_(0, to, messages)
        linear(total).sum().backward()

    return nn.ModuleList([radial, linear]), call


def main() -> int:
    """Print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--structures", type=int, default=28)
    parser.add_argument("--atoms", type=int, default=18)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--vectors", type=int, default=32)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    sizes = (args.structures, args.atoms, args.width, args.vectors)
    results: dict[str, Any] = {
        "sizes": dict(zip(("structures", "atoms", "width", "vectors"), sizes, strict=True))
    }
    for name, make in (("plain torch", ours), ("e3nn", with_e3nn)):
        module, call = make(*sizes)
        weights = sum(p.numel() for p in module.parameters())
        results[name] = {"cpu_ms": median_ms(call, args.times), "weights": weights}
    write_json(results, args.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
