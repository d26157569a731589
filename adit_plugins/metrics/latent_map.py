"""Where structures lie in the latent space of the release, on the map of its training set.

A structure's point is the mean of its atoms' latents on the first two principal components that the
training set has, each kind on its own: those of both kinds together tell crystals from molecules
and little else.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adit_plugins.structures.samples import Sample

if TYPE_CHECKING:
    from adit_model import ADiT
    from adit_plugins.generation.training_form import TrainingForm

TABLE = "latent_map.json"
BINS = 40  # of the training set's density on either axis
EDGE = 0.002  # share of the training set beyond either end of an axis
MAX_ATOMS = 200  # all pairs attend to each other


def make_map(model: ADiT, data: Sequence[Path]) -> dict[str, Any]:
    """Return the map of prepared training data, its density as counts: no structure.

    Args:
        model: whose latents they are.
        data: prepared files, one of each kind.
    """
    found: dict[str, Any] = {"checkpoint": model.name, "hash": model.hash}
    for path in data:
        kind, points = _training_points(model, path)
        mean = points.mean(axis=0)
        _, lengths, axes = np.linalg.svd(points - mean, full_matrices=False)
        placed = (points - mean) @ axes[:2].T
        low, high = np.quantile(placed, [EDGE, 1 - EDGE], axis=0)
        limits = [(float(a), float(b)) for a, b in zip(low, high, strict=True)]
        counts, _, _ = np.histogram2d(placed[:, 0], placed[:, 1], bins=BINS, range=limits)
        found[kind] = {
            "num": len(points),
            "mean": np.round(mean, 5).tolist(),
            "axes": np.round(axes[:2], 5).tolist(),
            "variance_shares": np.round(lengths**2 / (lengths**2).sum(), 4).tolist(),
            "extent": np.round([low[0], high[0], low[1], high[1]], 4).tolist(),
            "counts": counts.astype(int).tolist(),
        }
    return found


def _training_points(model: ADiT, path: Path) -> tuple[str, NDArray[np.float64]]:
    """The kind of a prepared file and the mean latent of each training structure."""
    from adit_model.data import PreparedData, SizeGroups
    from adit_model.runs import mean_latents

    groups = SizeGroups(PreparedData.load(path), "train", model.device)
    points = [
        mean_latents(model, groups.batch(size, rows)).mean(dim=1).double().cpu().numpy()
        for size, rows in groups.batches(4096)
    ]
    return groups.kind, np.concatenate(points)


def _forms(model: ADiT, samples: Sequence[Sample]) -> Iterator[TrainingForm | None]:
    """Structures as the network knows them; its own samples are so already."""
    from adit_model.config import MAX_ATOMIC_NUMBER
    from adit_plugins.generation.training_form import TrainingForm, training_form

    for sample in samples:
        form = None
        if sample.num_atoms <= MAX_ATOMS and sample.atomic_numbers.max() <= MAX_ATOMIC_NUMBER:
            if sample.provenance.get("checkpoint_hash") == model.hash:
                form = TrainingForm(sample, np.arange(sample.num_atoms))
            else:
                with contextlib.suppress(ValueError):
                    form = training_form(sample)
        yield form


@lru_cache(maxsize=1)
def shipped_map() -> dict[str, Any]:
    """The map of the release's training set, as `make_map` returns it."""
    text = (files("adit_plugins") / "data" / TABLE).read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content


def points(samples: Sequence[Sample]) -> list[tuple[float, float] | None]:
    """Return the places of structures on the map; None for those that have no place.

    Those are larger than `MAX_ATOMS`, hold an element that the network does not know, or have no
    reduced cell.
    """
    from adit_plugins.generation.latents import encode_forms
    from adit_plugins.generation.recipe import last_change, load_model

    model = load_model(None, "cpu", last_change(None))
    if model.hash != shipped_map()["hash"]:
        return [None] * len(samples)
    forms = list(_forms(model, samples))
    known = [i for i, form in enumerate(forms) if form is not None]
    latents = encode_forms(model, [form for form in forms if form is not None])
    found: list[tuple[float, float] | None] = [None] * len(samples)
    for i, latent in zip(known, latents, strict=True):
        part = shipped_map()[samples[i].kind]
        x, y = np.array(part["axes"]) @ (latent.mean(axis=0) - np.array(part["mean"]))
        found[i] = (round(float(x), 4), round(float(y), 4))
    return found
