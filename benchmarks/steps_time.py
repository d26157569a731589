"""Time of 10,000 samples against the number of steps: latent transformers and equivariant networks.

    python benchmarks/steps_time.py --json benchmarks/results/steps_time.json \
        --plot docs/images/steps_time.png
    PYTHONPATH=. python benchmarks/steps_time.py --device cuda --json gpu.json

The figure of the ADiT talk on this machine: the published network in its three sizes and the
networks of EDM (molecules) and of DiffCSP and FlowMM (crystals), with random weights, and this
release. Structures of `--atoms` atoms (QM9 has 18 on average, MP-20 10), one CPU thread. A step is
one call of the network, two with the guidance of the published sampler. What a step costs is the
CPU time (on a GPU the clock's) of many steps minus that of few; the rest of a sample, such as its
decoder, is in the second of these.

The limit in the same run is the machine's rate of matrix products. What a row of this release
costs at its own number of steps against the published sampler's 100 is in `speedup`; quality at
these steps is in the model card.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from json_output import write_json
from peer_networks import EGNN, CSPNet
from sampling_speed import Costs, matmul_rate

from adit_model import ADiT
from adit_model.config import SIZES, published
from adit_model.samplers import SamplingSettings
from adit_model.training.utilisation import SIDE

STEPS = (10, 20, 50, 100, 250, 500, 1000)
FEW = 4  # a GPU records its kernels at the third
PUBLISHED_STEPS = 100
NUM = 10_000
Run = Callable[[int], None]  # of so many steps, a batch


def cost(run: Run, device: torch.device, many: int) -> tuple[float, float]:
    """Seconds of a step and of all else in a batch: CPU time on a CPU, else the clock's."""
    run(FEW)

    def seconds(steps: int) -> float:
        costs = Costs(device)
        run(steps)
        wall, cpu = costs.so_far()
        return cpu if device.type == "cpu" else wall

    few, all_of_them = min(seconds(FEW) for _ in range(3)), seconds(FEW + many)
    step = (all_of_them - few) / many
    return step, max(0.0, few - FEW * step)


def of_adit(model: ADiT, kind: str, rows: int, atoms: int, **settings: Any) -> Run:
    """Samples of a latent diffusion transformer."""

    def run(steps: int) -> None:
        model.draw(rows, kind, SamplingSettings(steps, **settings), num_atoms=atoms)

    return run


def of_peer(network: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> Run:
    """Calls of another network, without what its sampler does besides."""

    @torch.inference_mode()
    def run(steps: int) -> None:
        for _ in range(steps):
            network(*inputs)

    return run


def peers(rows: int, atoms: dict[str, int], device: torch.device) -> dict[tuple[str, str], Run]:
    """The networks of EDM and DiffCSP on random input, by name and kind."""
    random = partial(torch.rand, device=device)
    n, m = atoms["molecule"], atoms["crystal"]
    of_molecules = (random(rows, n, 6), random(rows, n, 3))
    of_crystals = (random(rows, m, 100), random(rows, 512), random(rows, m, 3), random(rows, 3, 3))
    return {
        ("EGNN of EDM", "molecule"): of_peer(EGNN().to(device), of_molecules),
        ("CSPNet of DiffCSP", "crystal"): of_peer(CSPNet().to(device), of_crystals),
    }


def measure(args: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """A row for each network and kind."""
    atoms = {"crystal": args.atoms[0], "molecule": args.atoms[1]}
    runs: dict[tuple[str, str], tuple[Run, int]] = {}
    for size in args.sizes:
        model = ADiT(published(size)).to(device).eval()
        for kind, num in atoms.items():
            run = of_adit(model, kind, args.rows, num, sampler="published", guidance_scale=2.0)
            runs[f"ADiT {size}, published", kind] = run, 2
    release = ADiT.from_pretrained(device=device)
    for precision in ("float32", "bfloat16"):
        for kind, num in atoms.items():
            run = of_adit(release, kind, args.rows, num, precision=precision)
            runs[f"this release, {precision}", kind] = run, 1
    runs |= {name: (run, 1) for name, run in peers(args.rows, atoms, device).items()}
    rows = []
    for (name, kind), (run, calls) in runs.items():
        step, rest = cost(run, device, args.steps)
        row = {
            "network": name,
            "kind": kind,
            "calls_a_step": calls,
            "ms_a_step_and_structure": round(1000 * step / args.rows, 4),
            "ms_besides": round(1000 * rest / args.rows, 4),
            f"minutes_for_{NUM}": {
                n: round(NUM * (n * step + rest) / args.rows / 60, 2) for n in STEPS
            },
        }
        rows.append(row)
        print(row, flush=True)
    return rows


def speedups(rows: list[dict[str, Any]], release: ADiT) -> list[dict[str, Any]]:
    """This release at its own steps against the published networks at theirs."""
    found = []
    for ours in (row for row in rows if row["network"].startswith("this release")):
        steps = release.config.sampling_of(ours["kind"]).num_steps
        mine = steps * ours["ms_a_step_and_structure"] + ours["ms_besides"]
        for row in rows:
            if row["kind"] == ours["kind"] and row["network"].startswith("ADiT"):
                theirs = PUBLISHED_STEPS * row["ms_a_step_and_structure"] + row["ms_besides"]
                found.append(
                    {
                        "network": ours["network"],
                        "kind": ours["kind"],
                        "num_steps": steps,
                        "ms_a_structure": round(mine, 1),
                        "against": f"{row['network']}, {PUBLISHED_STEPS} steps, guidance 2",
                        "its_ms_a_structure": round(theirs, 1),
                        "times_as_fast": round(theirs / mine, 1),
                    }
                )
    return found


def draw(rows: list[dict[str, Any]], path: Path, hardware: str) -> None:
    """One panel a kind, both axes logarithmic."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(11, 4.5), sharey=True)
    for axes, kind in zip(panels, ("crystal", "molecule"), strict=True):
        for row in (each for each in rows if each["kind"] == kind):
            minutes = row[f"minutes_for_{NUM}"]
            style = "--" if row["network"].startswith(("EGNN", "CSP")) else "-"
            axes.loglog(list(minutes), list(minutes.values()), style, label=row["network"])
        axes.set(title=f"{kind}s", xlabel="steps")
        axes.legend(fontsize=8)
    panels[0].set_ylabel(f"minutes for {NUM:,} samples, {hardware}")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> int:
    """Print the JSON, draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sizes", nargs="*", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--rows", type=int, default=32, help="structures at once")
    parser.add_argument("--steps", type=int, default=4, help="that are timed")
    parser.add_argument("--atoms", type=int, nargs=2, default=[10, 18], help="crystal, molecule")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    device = torch.device(args.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    rows = measure(args, device)
    release = ADiT.from_pretrained(device=device)
    rates = {
        name: round(matmul_rate(device, SIDE[device.type], getattr(torch, name)) / 1e9, 1)
        for name in ("float32", "bfloat16")
    }
    result = {
        "checkpoint": release.name,
        "hash": release.hash,
        "hardware": (
            torch.cuda.get_device_name(device)
            if device.type == "cuda"
            else f"{platform.machine()} CPU"
        ),
        "torch": torch.__version__,
        "matmul_gflop_per_second": rates,
        "structures_at_once": args.rows,
        "atoms": dict(zip(("crystal", "molecule"), args.atoms, strict=True)),
        "rows": rows,
        "speedup": speedups(rows, release),
    }
    write_json(result, args.json)
    if args.plot is not None:
        draw(rows, args.plot, "one thread" if device.type == "cpu" else result["hardware"])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
