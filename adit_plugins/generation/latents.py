"""Structures to latents and back, in the form in which the network knows structures."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from adit_model.checkpoints.pretrained import CheckpointNotice
from adit_model.runs import mean_latents
from adit_plugins.generation.training_form import TrainingForm, training_form
from adit_plugins.structures.samples import Convertible, Sample, from_batch, to_batch, to_samples

if TYPE_CHECKING:
    from adit_model import ADiT
    from adit_model.batch import AtomBatch

ATOMS_AT_ONCE = 4096


def encode(
    model: ADiT, structures: Convertible | Sequence[Convertible]
) -> list[NDArray[np.float32]]:
    """See `ADiTGenerator.encode`."""
    forms = [training_form(each) for each in to_samples(structures)]
    _tell_of_larger(model, forms)
    return encode_forms(model, forms)


def encode_forms(model: ADiT, forms: Sequence[TrainingForm]) -> list[NDArray[np.float32]]:
    """Return the standardised latents of structures that are in the form of the training data."""
    found: dict[int, NDArray[np.float32]] = {}
    for places, batch in _batches(forms):
        latents = mean_latents(model, batch.to(model.device))
        for place, latent in zip(places, latents.float().cpu().numpy(), strict=True):
            found[place] = latent[forms[place].sites]
    return [found[place] for place in range(len(forms))]


def reconstruct(model: ADiT, structures: Convertible | Sequence[Convertible]) -> list[Sample]:
    """See `ADiTGenerator.reconstruct`."""
    originals = to_samples(structures)
    forms = [training_form(each) for each in originals]
    _tell_of_larger(model, forms)
    found: dict[int, Sample] = {}
    for places, batch in _batches(forms):
        for place, sample in zip(places, from_batch(model.reconstruct(batch)), strict=True):
            original = originals[place]
            sample.provenance["reconstruction_of"] = original.provenance or repr(original)
            found[place] = forms[place].restored(sample)
    return [found[place] for place in range(len(forms))]


def _tell_of_larger(model: ADiT, forms: Sequence[TrainingForm]) -> None:
    """Warn of structures larger than any that the network has learned: they do not come back."""
    for kind, histogram in model.config.size_histogram.items():
        sizes = [form.sample.num_atoms for form in forms if form.sample.kind == kind]
        larger = [size for size in sizes if size > len(histogram) - 1 > 0]
        if larger:
            text = (
                f"{len(larger)} of {len(sizes)} {kind}s have up to {max(larger)} atoms, and "
                f"{model.name} has learned at most {len(histogram) - 1}: their latents are poor "
                "and do not decode (docs/train.md)."
            )
            warnings.warn(text, CheckpointNotice, stacklevel=4)


def _batches(forms: Sequence[TrainingForm]) -> Iterator[tuple[list[int], AtomBatch]]:
    """Places and structures of one kind and size, which need no padding."""

    def size(place: int) -> tuple[str, int]:
        sample = forms[place].sample
        return sample.kind, sample.num_atoms

    for (_, num_atoms), alike in groupby(sorted(range(len(forms)), key=size), size):
        places = list(alike)
        step = max(1, ATOMS_AT_ONCE // num_atoms)
        for start in range(0, len(places), step):
            part = places[start : start + step]
            yield part, to_batch([forms[place].sample for place in part])
