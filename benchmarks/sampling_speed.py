"""What samples cost on this machine: by kind, steps, precision, batches and processes.

    python benchmarks/sampling_speed.py --json FILE
    PYTHONPATH=. python benchmarks/sampling_speed.py --device cuda --json FILE

The second line is for a bare machine with a GPU: torch, numpy and safetensors are enough, and
`--compile both` shows what `torch.compile` gains there. The samples are those that users get:
elements from the checkpoint's prior, then their geometry. Wall clock says little beside other
programs; CPU time counts only this one, all its processes.

The limit in the same run: the machine's own rate of matrix products in the row's precision, by
which the share of the hardware follows that sampling uses. What cannot run here (`--compile`
without a compiler) is a row with its error.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import resource
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from adit_model import ADiT
from adit_model.config import KINDS
from adit_model.samplers import SamplingSettings
from adit_model.samplers import run as sampler_run
from adit_model.samplers.request import PRECISIONS

COLUMNS = (
    "kind", "num_steps", "precision", "compiled", "samples_at_once", "rows_at_once", "processes",
    "threads", "structures", "seconds", "structures_per_second", "cpu_ms_per_sample",
    "elements_cpu_ms_per_sample", "atoms_per_call", "share_of_matmul_rate", "peak_gib", "error",
)  # fmt: skip


def matmul_rate(
    device: torch.device, width: int = 1024, dtype: torch.dtype = torch.float32
) -> float:
    """Best of several products of `[width, width]` matrices, in FLOP a second."""
    a = torch.randn(width, width, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        (a @ a)[0, 0].item()
        best = min(best, time.perf_counter() - start)
    return 2 * width**3 / best


def weights_per_atom(model: ADiT) -> int:
    """Matrix weights that every atom passes in one denoiser call."""
    assert model.denoiser is not None
    modulation = ("adaLN_modulation", "t_embedder", "condition_embedders")
    return sum(
        p.numel()
        for name, p in model.denoiser.named_parameters()
        if p.dim() == 2 and not any(part in name for part in modulation)
    )


def padding_if_mixed(sizes: list[int], batch_size: int) -> float:
    """Share of padded places when samples are batched in order, whatever their size."""
    places = sum(
        len(chunk) * max(chunk)
        for chunk in (sizes[i : i + batch_size] for i in range(0, len(sizes), batch_size))
    )
    return 1.0 - sum(sizes) / places


class Costs:
    """Wall clock and CPU time since it was made, of this process and of its children."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._wait()
        self.wall, self.cpu = time.perf_counter(), self._cpu()

    def so_far(self) -> tuple[float, float]:
        """Seconds by the clock and of the CPUs; a GPU is waited for."""
        self._wait()
        return time.perf_counter() - self.wall, self._cpu() - self.cpu

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @staticmethod
    def _cpu() -> float:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(each.ru_utime + each.ru_stime for each in used)


def sample(
    model: ADiT, kind: str, settings: SamplingSettings, indices: Sequence[int], seed: int = 0
) -> dict[str, float]:
    """Make samples of a seed; atoms, and the seconds and CPU seconds of both parts."""
    costs = Costs(model.device)
    elements = None
    if model.prior is not None and model.tells_elements:
        elements = model.draw_elements(len(indices), kind, seed=seed, indices=indices)
    _, first = costs.so_far()
    drawn = model.draw(len(indices), kind, settings, seed=seed, indices=indices, elements=elements)
    wall, cpu = costs.so_far()
    return {
        "atoms": int(drawn.batch.num_atoms.sum()),
        "seconds": wall,
        "cpu": cpu,
        "cpu_of_elements": first,
    }


_model: ADiT  # of a worker process


def _load(checkpoint: str | None) -> None:
    global _model
    torch.set_num_threads(1)
    _model = ADiT.from_pretrained(checkpoint, device="cpu")
    _work("crystal", SamplingSettings(2), range(2))  # warm up


def _work(kind: str, settings: SamplingSettings, indices: Sequence[int]) -> dict[str, float]:
    return sample(_model, kind, settings, indices)


def _warm_up(model: ADiT, kind: str, settings: SamplingSettings, num: int) -> None:
    """So that kernels are chosen, and compiled for any shape, before the clock starts."""
    short = SamplingSettings(
        4, settings.guidance_scale, settings.sampler, settings.batch_size, settings.precision
    )
    sample(model, kind, short, range(num), seed=1)


def _calls(
    model: ADiT, kind: str, settings: SamplingSettings, chunks: Sequence[range]
) -> list[int]:
    """Atoms in each call of the denoiser, found with one step: all steps make the same calls.

    Not during the run that is timed, where a GPU replays calls that no hook sees.
    """
    found: list[int] = []
    assert model.denoiser is not None
    hook = model.denoiser.register_forward_pre_hook(
        lambda _, inputs: found.append(inputs[0].shape[0] * inputs[0].shape[1])
    )
    try:
        for chunk in chunks:
            sample(model, kind, replace(settings, num_steps=1), chunk)
    finally:
        hook.remove()
    return found * settings.num_steps


def run(
    model: ADiT,
    checkpoint: str | None,
    kind: str,
    settings: SamplingSettings,
    num: int,
    at_once: int,
    processes: int,
) -> dict[str, Any]:
    """Make `num` samples, so many at once; what they cost and what the denoiser was given."""
    chunks = [range(start, min(start + at_once, num)) for start in range(0, num, at_once)]
    calls: list[int] = []  # atoms in each call of the denoiser
    if processes > 1:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, context, _load, (checkpoint,)) as pool:
            list(
                pool.map(_work, [kind] * processes, [settings] * processes, [range(2)] * processes)
            )
            start = time.perf_counter()
            parts = list(pool.map(_work, [kind] * len(chunks), [settings] * len(chunks), chunks))
            wall = time.perf_counter() - start
    else:
        _warm_up(model, kind, settings, min(num, at_once, 256))
        calls = _calls(model, kind, settings, chunks)
        parts = [sample(model, kind, settings, chunk) for chunk in chunks]
        wall = sum(part["seconds"] for part in parts)
    total = {name: sum(part[name] for part in parts) for name in parts[0]}
    found = {
        "seconds": round(wall, 3),
        "structures_per_second": round(num / wall, 2),
        "cpu_ms_per_sample": round(1e3 * total["cpu"] / num, 3),
        "elements_cpu_ms_per_sample": round(1e3 * total["cpu_of_elements"] / num, 3),
        "atoms": int(total["atoms"]),
    }
    if calls:
        flop = 2 * weights_per_atom(model) * sum(calls)
        found |= {
            "atoms_per_call": round(sum(calls) / len(calls), 1),
            "network_calls_per_sample": round(sum(calls) / total["atoms"], 1),
            "gflop_per_second": round(flop / wall / 1e9, 1),
        }
    return found


def row(
    model: ADiT,
    limit: float,
    work: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    """Costs, share of the limit and peak memory; or the error, which costs no other row."""
    cuda = model.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    try:
        found = work()
    except Exception as error:  # noqa: BLE001 - a compiler that is not there, too little memory
        return {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
    if "gflop_per_second" in found:
        found["share_of_matmul_rate"] = round(found["gflop_per_second"] * 1e9 / limit, 3)
    if cuda:
        found["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    return found


def print_row(values: dict[str, Any] | None = None) -> None:
    """One line of the table; without values its head."""
    shown = {n: n for n in COLUMNS} if values is None else {n: values.get(n, "") for n in COLUMNS}
    widths = {n: max(len(part) for part in n.split("_")) + 1 for n in COLUMNS}
    if values is None:
        for line in range(max(n.count("_") for n in COLUMNS) + 1):
            parts = {n: [*n.split("_"), "", "", "", ""][line] for n in COLUMNS}
            print(" ".join(f"{parts[n]:>{widths[n]}}" for n in COLUMNS), flush=True)
        return
    print(" ".join(f"{shown[n]!s:>{widths[n]}}" for n in COLUMNS), flush=True)


def arguments() -> argparse.Namespace:
    """Options, with what suits the device where they are left out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint")
    parser.add_argument("--device", help="by default cuda where there is one")
    parser.add_argument("--kind", choices=KINDS, nargs="+", default=list(KINDS))
    parser.add_argument("--num", type=int, help="samples a row [256; on a GPU 10000]")
    parser.add_argument("--num-steps", type=int, nargs="+", default=[10, 50])
    parser.add_argument("--precision", choices=PRECISIONS, nargs="+", default=list(PRECISIONS))
    parser.add_argument(
        "--at-once", type=int, nargs="+", help="samples made together, grouped by size [--num]"
    )
    parser.add_argument(
        "--batch-size", type=int, nargs="+", default=[0], help="rows of one size; 0: by memory"
    )
    parser.add_argument("--compile", choices=("no", "yes", "both"), default="no")
    parser.add_argument(
        "--eager", action="store_true", help="on a GPU, start every kernel instead of replaying"
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="of one process")
    parser.add_argument("--processes", type=int, nargs="+", default=[1], help="of one thread each")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    args.device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    args.num = args.num or (10_000 if args.device.type == "cuda" else 256)
    args.at_once = args.at_once or [args.num]
    return args


def main() -> int:
    """Print the table; write the JSON after every row, so that an interruption loses nothing."""
    args = arguments()
    torch.set_num_threads(1)
    if args.eager:
        sampler_run.Replayed = lambda denoiser: denoiser  # type: ignore[assignment,misc,return-value]
    gpu = torch.cuda.get_device_name(args.device) if args.device.type == "cuda" else ""
    limits = {p: matmul_rate(args.device, dtype=getattr(torch, p)) for p in args.precision}
    if gpu:
        limits = {p: matmul_rate(args.device, 8192, getattr(torch, p)) for p in args.precision}
    model = ADiT.from_pretrained(args.checkpoint, device=args.device)
    assert model.denoiser is not None
    result: dict[str, Any] = {
        "checkpoint": model.name,
        "hash": model.hash,
        "denoiser_parameters": sum(p.numel() for p in model.denoiser.parameters()),
        "hardware": gpu or f"{platform.machine()} CPU",
        "torch": torch.__version__,
        "calls": "replayed" if gpu and not args.eager else "eager",
        "matmul_gflop_per_second": {p: round(limit / 1e9, 1) for p, limit in limits.items()},
        "rows": [],
    }
    print(json.dumps({name: value for name, value in result.items() if name != "rows"}))
    print_row()
    compiled = {"no": [False], "yes": [True], "both": [False, True]}[args.compile]
    ways = [(n, 1) for n in args.processes if n > 1]
    ways = [(1, n) for n in args.threads if 1 in args.processes] + ways
    for use, kind, steps, precision, at_once, rows, (processes, threads) in product(
        compiled, args.kind, args.num_steps, args.precision, args.at_once, args.batch_size, ways
    ):
        torch.set_num_threads(threads)
        if use and not hasattr(model.denoiser.forward, "_torchdynamo_orig_callable"):
            # The method, not the module: hooks stay outside. One graph for each set of arguments.
            torch._dynamo.config.recompile_limit = 64
            compiled_forward = torch.compile(model.denoiser.forward, dynamic=True)
            model.denoiser.forward = compiled_forward  # type: ignore[method-assign]
        settings = SamplingSettings(steps, batch_size=rows or None, precision=precision)
        setting = {
            "kind": kind,
            "num_steps": steps,
            "guidance_scale": model.config.guidance_scales.get(kind, 1.0),
            "precision": precision,
            "compiled": use,
            "samples_at_once": at_once,
            "rows_at_once": rows or "memory",
            "processes": processes,
            "threads": threads,
            "structures": args.num,
        }
        found = row(
            model,
            limits[precision],
            partial(run, model, args.checkpoint, kind, settings, args.num, at_once, processes),
        )
        result["rows"].append(setting | found)
        print_row(setting | found)
        if args.json is not None:
            args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
