"""Time to load a file of the published sizes, beside torch's own unrestricted reader.

    python benchmarks/published_load.py --size S --json benchmarks/results/published_load.json

The file is written here with random weights and Adam's state, as a trainer leaves it: its length
and structure are those of the published one, its content does not matter for the time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import tempfile
import time
import warnings
from pathlib import Path

import torch

from adit_model import ADiT
from adit_model.checkpoints import published
from adit_model.config import SIZES
from adit_model.config import published as published_config


def write(size: str, path: Path) -> None:
    """A checkpoint with weights and two moments a weight."""
    state = {
        k: torch.randn(v) for k, v in published.expected_shapes(published_config(size)).items()
    }
    moments = {
        i: {"step": torch.tensor(1.0), "exp_avg": w.clone(), "exp_avg_sq": w.clone()}
        for i, (k, w) in enumerate(state.items())
        if k.startswith("denoiser.")
    }
    torch.save({"state_dict": state, "optimizer_states": [{"state": moments}]}, path)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="S")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ldm.ckpt"
        write(arguments.size, path)
        ours, plain = [], []
        for _ in range(arguments.repeats):
            start = time.perf_counter()
            model = ADiT.from_pretrained(path, device="cpu")
            ours.append(time.perf_counter() - start)
            start = time.perf_counter()
            torch.load(path, map_location="cpu", weights_only=False)
            plain.append(time.perf_counter() - start)
        result = {
            "size": arguments.size,
            "file_megabytes": round(path.stat().st_size / 1e6, 1),
            "parameters_million": round(sum(p.numel() for p in model.parameters()) / 1e6, 1),
            "seconds_to_a_ready_model": [round(s, 2) for s in ours],
            "seconds_torch_load_unrestricted_dictionary_only": [round(s, 2) for s in plain],
            "peak_memory_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
