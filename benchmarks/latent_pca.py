"""What the shared latent space looks like: components and linear probes of atoms of both kinds.

    python benchmarks/latent_pca.py --data data/crystals.safetensors data/qm9.safetensors \
        --plot docs/images/latent.png --json benchmarks/results/latent_pca.json

Latents are the encoder's means of unseen structures, standardised as the denoiser sees them, as
many atoms of each kind; those of samples are what the denoiser ends with. Principal components show
where the variance is, not what it means: so how much of each component's variance kind and group of
the periodic table explain (eta squared), and how well linear probes read them: least squares onto
the classes, fitted to a half of the atoms and tested on the others and on samples. The limit beside
it is the share of the most frequent class; a nearest neighbour in the latent space says what is
there at all. The picture shows both: two principal components, and the two directions in which the
groups lie farthest apart (linear discriminants).
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from numpy.typing import NDArray
from pymatgen.core import Element
from relaxed_rows import write_json
from scipy.spatial import cKDTree

from adit_model import ADiT
from adit_model.config import KINDS
from adit_model.data import PreparedData, SizeGroups
from adit_model.runs import mean_latents
from adit_model.samplers import Request, SamplingSettings
from adit_model.samplers.run import sample_latents

mpl.use("Agg")
import matplotlib.pyplot as plt

# Title, points, the names of their classes, and whether they are of samples.
Panel = tuple[str, NDArray[Any], NDArray[Any], NDArray[Any]]


def latents(model: ADiT, path: Path, num: int, split: str) -> Sequence[NDArray[Any]]:
    """Standardised latents `[num, latent_dim]`, atomic numbers and structures of atoms."""
    groups = SizeGroups(PreparedData.load(path), split, model.device)
    found, numbers, owners = [], [], []
    seen = 0
    for size, rows in groups.batches(4096):
        batch = groups.batch(size, rows)
        found.append(mean_latents(model, batch).flatten(0, 1).cpu().numpy())
        numbers.append(batch.atomic_numbers.flatten().cpu().numpy())
        owners.append(np.arange(seen, seen + len(batch)).repeat(size))
        seen += len(batch)
    chosen = np.random.default_rng(0).permutation(sum(map(len, numbers)))[:num]
    return [np.concatenate(each)[chosen] for each in (found, numbers, owners)]


def components(points: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The principal axes `[dim, dim]`, and the share of the variance on each."""
    _, values, axes = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
    return axes, values**2 / (values**2).sum()


def told_by_neighbour(points: NDArray[Any], labels: NDArray[Any], owners: NDArray[Any]) -> float:
    """Share of points whose nearest neighbour in another structure has their label."""
    _, places = cKDTree(points).query(points, k=32)  # more than a structure has atoms
    first = (owners[places] != owners[:, None]).argmax(axis=1)
    nearest = places[np.arange(len(points)), first]
    return round(float((labels[nearest] == labels).mean()), 4)


def explained(points: NDArray[Any], labels: NDArray[Any]) -> list[float]:
    """Share of each column's variance that lies between the classes (eta squared)."""
    mean = points.mean(axis=0)
    between = sum(
        (labels == label).sum() * (points[labels == label].mean(axis=0) - mean) ** 2
        for label in np.unique(labels)
    )
    return [round(float(x), 3) for x in between / ((points - mean) ** 2).sum(axis=0)]


def probe(
    points: NDArray[Any], labels: NDArray[Any], others: Sequence[tuple[NDArray[Any], NDArray[Any]]]
) -> list[float]:
    """Share of other points whose class a linear map, fitted to these, gives."""
    classes = np.unique(labels)
    targets = (labels[:, None] == classes).astype(float)

    def with_one(x: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate([x, np.ones((len(x), 1))], axis=1)

    weights, *_ = np.linalg.lstsq(with_one(points), targets, rcond=None)
    return [
        round(float((classes[(with_one(x) @ weights).argmax(axis=1)] == y).mean()), 4)
        for x, y in others
    ]


def discriminants(points: NDArray[Any], labels: NDArray[Any]) -> NDArray[Any]:
    """The two directions `[2, dim]` in which classes lie farthest apart for their own width."""
    means = {label: points[labels == label].mean(axis=0) for label in np.unique(labels)}
    inside = np.cov((points - np.array([means[label] for label in labels.tolist()])).T)
    values, axes = np.linalg.eigh(inside)
    white = axes / np.sqrt(values)  # in these coordinates the classes are spheres
    centres = np.array([means[label] for label in labels.tolist()]) @ white
    _, _, found = np.linalg.svd(centres - centres.mean(axis=0), full_matrices=False)
    return found[:2] @ white.T


def draw(panels: Sequence[Panel], path: Path) -> None:
    """Dots are real atoms, crosses those of samples."""
    figure, axes = plt.subplots(1, len(panels), figsize=(5.2 * len(panels), 4.8))
    for ax, (title, points, names, generated) in zip(axes, panels, strict=True):
        ax.set_prop_cycle(color=mpl.colormaps["tab20"](range(20)))
        for name, _ in Counter(names.tolist()).most_common():
            real, made = (points[(names == name) & (generated == flag)] for flag in (False, True))
            (line,) = ax.plot(real[:, 0], real[:, 1], ".", ms=1.5, alpha=0.4, label=name)
            ax.plot(made[:, 0], made[:, 1], "+", ms=3, alpha=0.4, color=line.get_color())
        low, high = np.quantile(points, [0.002, 0.998], axis=0)
        ax.plot([], [], "k+", ms=1, label="of samples")
        ax.set(title=title, xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        ax.legend(markerscale=5, fontsize=6, loc="best")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def sampled(model: ADiT, kind: str, num: int, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Final latents of samples and the elements that they were told, `num` atoms."""
    assert model.denoiser is not None
    steps = SamplingSettings(model.config.sampling_of(kind).num_steps)
    elements = model.draw_elements(num // 8, kind, seed=seed)
    request = Request.checked(
        model.config, len(elements), kind, steps, seed=seed, elements=elements
    )
    found, numbers = [], []
    with torch.no_grad():
        for rows, latent, _ in sample_latents(model.denoiser, request, model.device):
            found.append(latent.flatten(0, 1).cpu().numpy())
            numbers += [z for row in rows for z in elements[row]]
    chosen = np.random.default_rng(0).permutation(len(numbers))[:num]
    return np.concatenate(found)[chosen], np.array(numbers)[chosen]


def groups_of(numbers: NDArray[Any]) -> NDArray[Any]:
    """Names of the elements' families."""
    names = {z: family(z) for z in np.unique(numbers).tolist()}
    return np.array([names[z] for z in numbers.tolist()])


def family(number: int) -> str:
    """Hydrogen, nonmetals, or a block of metals."""
    element = Element.from_Z(number)
    tests = {
        "H": number == 1, "C": number == 6, "N": number == 7, "O": number == 8,
        "halogens": element.is_halogen, "noble gases": element.is_noble_gas,
        "S, Se, Te": element.is_chalcogen, "alkali": element.is_alkali,
        "alkaline earth": element.is_alkaline,
        "f block": element.is_lanthanoid or element.is_actinoid,
        "d block": element.is_transition_metal,
    }  # fmt: skip
    return next((name for name, found in tests.items() if found), "p block")


def reading(
    points: NDArray[Any], labels: NDArray[Any], owners: NDArray[Any], made: tuple[Any, Any]
) -> dict[str, Any]:
    """What the components and a linear probe tell of some labels.

    The probe is tested on other structures than it is fitted to.
    """
    half = owners % 2 == 0
    others = [(points[~half], labels[~half]), made]
    held, samples = probe(points[half], labels[half], others)
    two, _ = probe(points[half, :2], labels[half], [(x[:, :2], y) for x, y in others])
    most = Counter(labels.tolist()).most_common(1)[0][1]
    return {
        "explained_of_each_component": explained(points, labels),
        "probe": held,
        "probe_on_samples": samples,
        "probe_of_two_components": two,
        "nearest_neighbour": told_by_neighbour(points, labels, owners),
        "most_frequent": round(most / len(labels), 4),
    }


def main() -> int:
    """Print the JSON, draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs=2, type=Path, required=True, help="crystals, molecules")
    parser.add_argument("--checkpoint")
    parser.add_argument("--num", type=int, default=8000, help="atoms of each kind")
    parser.add_argument("--split", default="test")
    parser.add_argument("--seed", type=int, default=0, help="of the samples")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    model = ADiT.from_pretrained(args.checkpoint)
    both = [latents(model, path, args.num, args.split) for path in args.data]
    made = [sampled(model, kind, args.num // 4, args.seed) for kind in KINDS]
    mean = np.concatenate([each[0] for each in both]).mean(axis=0)
    axes, shares = components(np.concatenate([each[0] for each in both]))
    points, numbers, kinds, generated = [], [], [], []
    for flag, parts in ((False, both), (True, made)):
        for kind, (latent, types, *_) in zip(KINDS, parts, strict=True):
            points.append((latent - mean) @ axes.T)
            numbers.append(types)
            kinds += [kind] * len(types)
            generated += [flag] * len(types)
    placed, new = np.concatenate(points), np.array(generated)
    kind_of, group_of = np.array(kinds), groups_of(np.concatenate(numbers))
    real = placed[~new]
    first, second = (each[2] for each in both)
    owners = np.concatenate([first, second + first.max() + 1])
    owners = np.random.default_rng(1).permutation(owners.max() + 1)[owners]
    result: dict[str, Any] = {
        "checkpoint": model.name,
        "hash": model.hash,
        "atoms": dict(zip(KINDS, (len(each[1]) for each in both), strict=True)),
        "atoms_of_samples": dict(zip(KINDS, (len(each[1]) for each in made), strict=True)),
        "variance_shares": [round(float(share), 4) for share in shares],
        "kind": reading(real, kind_of[~new], owners, (placed[new], kind_of[new])),
        "group": reading(real, group_of[~new], owners, (placed[new], group_of[new])),
    }
    for kind in KINDS:
        there, here = kind_of[~new] == kind, kind_of[new] == kind
        ours = (placed[new][here], group_of[new][here])
        result[f"group, {kind}s"] = reading(real[there], group_of[~new][there], owners[there], ours)
    write_json(result, args.json)
    if args.plot is not None:
        apart = placed @ discriminants(real, group_of[~new]).T
        draw(
            [
                ("principal components 1 and 2", placed, kind_of, new),
                ("discriminants of the groups", apart, kind_of, new),
                ("discriminants of the groups", apart, group_of, new),
            ],
            args.plot,
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
