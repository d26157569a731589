"""Scaling law and transfer: what size, more atoms and the other kind do for a denoiser.

    python benchmarks/scaling.py runs/scaling --data data/crystals.safetensors \
        data/qm9.safetensors --json benchmarks/results/scaling.json --plot docs/images/scaling.png

reads what `scaling_runs.py` has left. Scaling: loss on unseen structures against weights and atoms
of training, with the fit log L = c - a log N - b log D by least squares and its standard errors.
Beside it the loss of the release (`--data`), which has learned longer, and what the fit expects of
it. Transfer: networks that learned both kinds beside those of one kind, which have seen as many
atoms of it in as many steps; their losses are left out, since each is in the units of its own
data's latents. Losses are for equal batches, times and noise on a device; validity of samples is by
the project's metrics, whose elements are given and the same for all.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from numpy.typing import NDArray
from relaxed_rows import write_json
from sample_quality import figures, score
from scaling_runs import SIZES, TRANSFER_BUDGET, losses

from adit_model import ADiT
from adit_model.batch import AtomBatch
from adit_model.config import KINDS
from adit_plugins import from_batch
from adit_plugins.metrics.names import plain

mpl.use("Agg")
import matplotlib.pyplot as plt

Row = dict[str, Any]
SHOWN = {"crystal": ("struct_valid",), "molecule": ("valid_openbabel", "valid_strict")}
TITLES = {
    "struct_valid": "crystals structurally valid",
    "valid_openbabel": "molecules valid (OpenBabel)",
    "valid_strict": "strictly valid",
}


def read_batch(arrays: Any, kind: str) -> AtomBatch:
    """Samples of one kind as they were drawn."""
    values = {
        name: torch.from_numpy(arrays[f"{kind}.{name}"])
        for name in ("atomic_numbers", "frac_coords", "positions", "lattice", "mask")
    }
    values["atomic_numbers"] = values["atomic_numbers"].long()
    values["mask"] = values["mask"].bool()
    periodic = torch.full((len(values["mask"]),), kind == KINDS[0])
    return AtomBatch(periodic=periodic, **values)


def with_validity(path: Path) -> Row:
    """A run's row, with how many of its samples are valid, unless that was counted before."""
    row: Row = json.loads(path.read_text())
    if "valid" in row:
        return row
    arrays = np.load(path.with_suffix(".npz"))
    row["valid"] = {}
    for kind in row["kinds"]:
        samples = from_batch(read_batch(arrays, kind))
        rates = figures(score(kind, samples, "crystal", True, 0))["rates"]
        by_name = {rate["name"]: rate for rate in rates}
        for name in SHOWN[kind]:
            row["valid"][name] = [
                by_name[plain(name)]["numerator"],
                by_name[plain(name)]["denominator"],
            ]
    return row


def solved(rows: Sequence[Row], kind: str) -> tuple[NDArray[Any], NDArray[Any], float]:
    """Constant and exponents, their covariance `[3, 3]`, and the scatter about the fit."""
    x = np.array([[1.0, -np.log(r["weights"]), -np.log(atoms(r))] for r in rows])
    values = np.log([row["losses"][kind] for row in rows])
    found, *_ = np.linalg.lstsq(x, values, rcond=None)
    rest = values - x @ found
    variance = (rest @ rest) / (len(rows) - len(found))
    return found, np.linalg.inv(x.T @ x) * variance, float(np.sqrt(variance))


def fit(rows: Sequence[Row], kind: str) -> dict[str, Any]:
    """Exponents of weights and atoms with their standard errors."""
    found, covariance, scatter = solved(rows, kind)
    errors = np.sqrt(np.diag(covariance))
    return {
        "runs": len(rows),
        "weights_exponent": [round(float(found[1]), 3), round(float(errors[1]), 3)],
        "atoms_exponent": [round(float(found[2]), 3), round(float(errors[2]), 3)],
        "residual": round(scatter, 3),
    }


def expected(rows: Sequence[Row], kind: str, row: Row) -> list[float]:
    """Loss of another training by the fit, and the standard error of that."""
    found, covariance, _ = solved(rows, kind)
    x = np.array([1.0, -np.log(row["weights"]), -np.log(atoms(row))])
    value = float(np.exp(x @ found))
    return [round(value, 3), round(value * float(np.sqrt(x @ covariance @ x)), 3)]


def release(data: Sequence[Path], rows: Sequence[Row]) -> Row:
    """Losses of the release on the same structures, and what fits expect of its training."""
    model = ADiT.from_pretrained(device="cpu")
    assert model.denoiser is not None
    training = model.config.provenance["denoiser"]
    weights = sum(p.numel() for p in model.denoiser.parameters())
    row = {"tokens": training["tokens_per_step"], "steps": training["steps"], "weights": weights}
    return row | {"losses": losses(model, data, "cpu"), "hash": model.hash} | beyond(rows, row)


def beyond(rows: Sequence[Row], row: Row) -> Row:
    """What the fits of all runs, and of those on the GPU alone, expect of another training."""
    on_gpu = [each for each in rows if not each.get("hardware", "").startswith("cpu")]
    return {
        "expected": {kind: expected(rows, kind, row) for kind in KINDS},
        "expected_by_those_on_the_gpu": {kind: expected(on_gpu, kind, row) for kind in KINDS},
    }


def atoms(row: Row) -> int:
    """That the training has seen, of all kinds."""
    return int(row["tokens"] * row["steps"])


def flop(row: Row) -> float:
    """Of training: 6 a weight and atom, and 1 for the first guesses of self-conditioning."""
    return float(7 * row["weights_per_atom"] * atoms(row))


def mean(values: Sequence[float]) -> str:
    """Of several seeds, with half their range."""
    spread = (max(values) - min(values)) / 2
    return f"{np.mean(values):.3f}" + (f" ± {spread:.3f}" if len(values) > 1 else "")


def counts(rows: Sequence[Row], name: str) -> str:
    """Valid samples of all seeds together."""
    found = [row["valid"][name] for row in rows if name in row["valid"]]
    if not found:
        return "-"
    good, all_of_them = (sum(each) for each in zip(*found, strict=True))
    return f"{100 * good / all_of_them:.1f} % ({good}/{all_of_them})"


def table(
    rows: Sequence[Row],
    key: Callable[[Row], tuple[str, ...]],
    heads: Sequence[str],
    kinds: Sequence[str] = KINDS,
) -> str:
    """Markdown with a line for each key, over its seeds; losses of some kinds."""
    groups: defaultdict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    names = [name for kind in KINDS for name in SHOWN[kind]]
    named = [f"loss, {kind}s" for kind in kinds]
    lines = [[*heads, "seeds", *named, *(TITLES[name] for name in names)]]
    lines.append(["---"] * len(lines[0]))
    for line, some in groups.items():
        cells = [*line, str(len(some))]
        cells += [mean([row["losses"][kind] for row in some]) for kind in kinds]
        lines.append([*cells, *(counts(some, name) for name in names)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def draw(rows: Sequence[Row], path: Path) -> None:
    """Loss against operations of training, a line a size."""
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6))
    for axes, kind in zip(panels, KINDS, strict=True):
        for size in SIZES:
            some = sorted((r for r in rows if r["size"] == size), key=flop)
            x, y = [flop(row) for row in some], [row["losses"][kind] for row in some]
            axes.loglog(x, y, "o-", label=f"{size} weights")
        axes.set(title=f"{kind}s", xlabel="operations of training")
        axes.legend(fontsize=8)
    panels[0].set_ylabel("loss on unseen structures")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> int:
    """Print the JSON; write it and the picture where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("--data", type=Path, nargs=2, help="for the loss of the release")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    paths = sorted(path for path in args.runs.glob("*M-*.json"))
    if not paths:
        parser.error(f"no runs in {args.runs}: make them with benchmarks/scaling_runs.py")
    rows = [with_validity(path) for path in paths]
    rows.sort(
        key=lambda r: (list(SIZES).index(r["size"]), r["budget"], -len(r["kinds"]), r["seed"])
    )
    joint = [row for row in rows if len(row["kinds"]) == len(KINDS)]
    equal = [row for row in rows if row["budget"] == TRANSFER_BUDGET]
    alone = {row["size"] for row in equal if len(row["kinds"]) == 1}
    equal = [row for row in equal if row["size"] in alone]
    law = [row for row in joint if row["seed"] == 0]
    tables = {
        "scaling": table(joint, lambda r: (r["size"], f"{r['budget']}"), ("weights", "M atoms")),
        "transfer": table(
            equal,
            lambda r: (r["size"], "both" if len(r["kinds"]) > 1 else r["kinds"][0]),
            ("weights", "trained on"),
            (),
        ),
    }
    result = {
        "about": json.loads((args.runs / "about.json").read_text()),
        "law": {kind: fit(law, kind) for kind in KINDS},
        "release": release(args.data, law) if args.data else None,
        "tables": {name: text.split("\n") for name, text in tables.items()},
        "rows": [row | {"training_flop": flop(row)} for row in rows],
    }
    write_json(result, args.json)
    print("\n\n".join(tables.values()))
    if args.plot is not None:
        draw(law, args.plot)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
