"""What the shared latent space looks like: principal components of crystals' and molecules' atoms.

    python benchmarks/latent_pca.py --data data/crystals.safetensors data/qm9.safetensors \
        --plot benchmarks/results/latent_pca.png --json benchmarks/results/latent_pca.json

Latents are the encoder's means of unseen structures, standardised as the denoiser sees them, as
many atoms of each kind. Besides the picture: how well an atom's nearest neighbour in the latent
space (all 8 numbers, and the two of the picture) tells its kind and its element, with the share
that guessing the most frequent answer would have as the limit.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray
from relaxed_rows import write_json
from scipy.spatial import cKDTree

from adit_model import ADiT
from adit_model.data import PreparedData, SizeGroups
from adit_model.runs import mean_latents

mpl.use("Agg")
import matplotlib.pyplot as plt

NUM_NAMED = 8  # elements of each kind with a colour of their own


def latents(model: ADiT, path: Path, num: int, split: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Standardised latents `[num, latent_dim]` and atomic numbers `[num]` of atoms of a split."""
    groups = SizeGroups(PreparedData.load(path), split, model.device)
    found, numbers = [], []
    for size, rows in groups.batches(4096):
        batch = groups.batch(size, rows)
        found.append(mean_latents(model, batch).flatten(0, 1).cpu().numpy())
        numbers.append(batch.atomic_numbers.flatten().cpu().numpy())
    chosen = np.random.default_rng(0).permutation(sum(map(len, numbers)))[:num]
    return np.concatenate(found)[chosen], np.concatenate(numbers)[chosen]


def components(points: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The points on their principal axes, and the share of the variance on each."""
    centred = points - points.mean(axis=0)
    _, values, axes = np.linalg.svd(centred, full_matrices=False)
    return centred @ axes.T, values**2 / (values**2).sum()


def told_by_neighbour(points: NDArray[Any], labels: NDArray[Any]) -> dict[str, float]:
    """Share of points whose nearest neighbour has their label, and that of the commonest label."""
    _, places = cKDTree(points).query(points, k=2)
    most = Counter(labels.tolist()).most_common(1)[0][1]
    return {
        "nearest_neighbour": round(float((labels[places[:, 1]] == labels).mean()), 4),
        "most_frequent": round(most / len(labels), 4),
    }


def draw(points: NDArray[Any], periodic: NDArray[Any], numbers: NDArray[Any], path: Path) -> None:
    """Two panels: crystals against molecules, and the most frequent elements of each."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 5), sharex=True, sharey=True)
    right.set_prop_cycle(color=mpl.colormaps["tab20"](range(20)))
    for flag, name in ((True, "crystals"), (False, "molecules")):
        mine = points[periodic == flag]
        left.scatter(mine[:, 0], mine[:, 1], s=2, alpha=0.4, label=name)
        common = Counter(numbers[periodic == flag].tolist()).most_common(NUM_NAMED)
        for number, _ in common:
            some = points[(periodic == flag) & (numbers == number)]
            label = f"{chemical_symbols[number]} ({name[:-1]})"
            right.scatter(some[:, 0], some[:, 1], s=2, alpha=0.5, label=label)
    for axes in (left, right):
        axes.set(xlabel="component 1", ylabel="component 2")
        axes.legend(markerscale=5, fontsize=7, loc="best")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> int:
    """Print the JSON, draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs=2, type=Path, required=True, help="crystals, molecules")
    parser.add_argument("--checkpoint")
    parser.add_argument("--num", type=int, default=8000, help="atoms of each kind")
    parser.add_argument("--split", default="test")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    model = ADiT.from_pretrained(args.checkpoint)
    both = [latents(model, path, args.num, args.split) for path in args.data]
    points = np.concatenate([each[0] for each in both])
    numbers = np.concatenate([each[1] for each in both])
    periodic = np.repeat([True, False], [len(each[1]) for each in both])
    placed, shares = components(points)
    spaces = {"all_components": placed, "two_components": placed[:, :2]}
    result: dict[str, Any] = {
        "checkpoint": model.name,
        "hash": model.hash,
        "atoms": {"crystal": int(periodic.sum()), "molecule": int((~periodic).sum())},
        "variance_shares": [round(float(share), 4) for share in shares],
        "kind": {name: told_by_neighbour(space, periodic) for name, space in spaces.items()},
        "element_of_crystals": {
            name: told_by_neighbour(space[periodic], numbers[periodic])
            for name, space in spaces.items()
        },
        "element_of_molecules": {
            name: told_by_neighbour(space[~periodic], numbers[~periodic])
            for name, space in spaces.items()
        },
    }
    write_json(result, args.json)
    if args.plot is not None:
        draw(placed, periodic, numbers, args.plot)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
