"""ADiTGenerator: a recipe for samples, and the samples it makes."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count, islice
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from monty.json import MSONable

from adit_plugins import __version__
from adit_plugins.samples import KINDS, Sample, from_batch

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Molecule, Structure

    from adit_model import ADiT

Progress = Callable[[int, int | None], None]

_CONVERTERS: dict[str, Callable[[Sample], Any]] = {
    "sample": lambda sample: sample,
    "ase": Sample.to_ase,
    "pymatgen": Sample.to_pymatgen,
}


@dataclass
class ADiTGenerator(MSONable):
    """Generate crystals or molecules; every field is a part of the recipe.

    Sample `i` of seed `s` depends on the recipe and on `(s, i)` alone, never on the batch size
    or on what was generated before. The weights are loaded at the first use and shared by all
    generators with the same checkpoint and device.

    Args:
        kind: `"crystal"` or `"molecule"`. Both count their samples from 0 for each seed.
        checkpoint: name, folder, published `.ckpt` file or `hf:OWNER/REPOSITORY` (see
            `ADiT.from_pretrained`); None is the release that ships with the package.
        num_steps: integration steps; more is slower and closer to the model's distribution.
        guidance_scale: classifier-free guidance; 1 is none.
        seed: of the noise and of the sizes.
        num_atoms: atoms in every sample; None draws sizes from the training histogram.
        batch_size: samples made at once; it bounds the memory, not the result.
        device: such as `"cpu"` or `"cuda"`; None lets the model choose.
        sampler: `"euler"`, `"heun"`, or `"published"` for the sampler of arXiv 2503.03965.

    Raises:
        ValueError: a field has an impossible value; the message names the allowed ones.

    Example:
        >>> from adit_plugins import ADiTGenerator
        >>> generator = ADiTGenerator(kind="crystal", num_steps=10, seed=1)
        >>> structures = generator.generate(2)
        >>> ADiTGenerator.from_dict(generator.as_dict()) == generator
        True
    """

    kind: Literal["crystal", "molecule"] = "crystal"
    checkpoint: str | None = None
    num_steps: int = 50
    guidance_scale: float = 2.0
    seed: int = 0
    num_atoms: int | None = None
    batch_size: int = 256  # drawn together, then grouped by size: fewer groups are slower
    device: str | None = None
    sampler: str = "euler"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"Unknown kind {self.kind!r}. Known: {', '.join(KINDS)}.")
        # Plain integers, as those of numpy would not survive JSON.
        self.num_steps = _checked_integer("num_steps", self.num_steps, 1)
        self.seed = _checked_integer("seed", self.seed, 0)
        self.batch_size = _checked_integer("batch_size", self.batch_size, 1)
        if self.num_atoms is not None:
            self.num_atoms = _checked_integer("num_atoms", self.num_atoms, 1)
        scale = self.guidance_scale
        if not (isinstance(scale, Real) and math.isfinite(scale) and scale >= 0):
            raise ValueError(
                f"guidance_scale is {scale!r}; it must be a finite number >= 0 "
                "(1 is no guidance, 2 the default)"
            )
        self.guidance_scale = float(scale)
        if self.sampler != "euler":  # the default needs no look at the rules, which import torch
            _check_sampler(self.sampler)
        if self.checkpoint is not None:
            self.checkpoint = str(self.checkpoint)  # a Path would not survive JSON

    @property
    def model(self) -> ADiT:
        """The network, loaded at the first use."""
        return _load_model(self.checkpoint, self.device, _last_change(self.checkpoint))

    def generate(self, num: int = 16) -> list[Structure | Molecule]:
        """Return pymatgen structures (crystals) or molecules, with provenance.

        Raises:
            ValueError: `num` is not a positive integer, or the model cannot follow the recipe.

        Example:
            >>> from adit_plugins import ADiTGenerator
            >>> molecules = ADiTGenerator(kind="molecule", num_steps=10).generate(2)
            >>> molecules[1].properties["adit"]["index"]
            1
        """
        return list(self.stream(num, as_="pymatgen"))

    def samples(self, num: int, start: int = 0, progress: Progress | None = None) -> list[Sample]:
        """Return samples `start` to `start + num - 1` of the seed.

        Raises:
            ValueError: as for `stream`.
        """
        return list(self.stream(num, start=start, progress=progress))

    @overload
    def stream(
        self,
        num: int | None = ...,
        as_: Literal["sample"] = ...,
        start: int = ...,
        progress: Progress | None = ...,
    ) -> Iterator[Sample]: ...
    @overload
    def stream(
        self,
        num: int | None = ...,
        *,
        as_: Literal["ase"],
        start: int = ...,
        progress: Progress | None = ...,
    ) -> Iterator[Atoms]: ...
    @overload
    def stream(
        self,
        num: int | None = ...,
        *,
        as_: Literal["pymatgen"],
        start: int = ...,
        progress: Progress | None = ...,
    ) -> Iterator[Structure | Molecule]: ...
    def stream(
        self,
        num: int | None = None,
        as_: str = "sample",
        start: int = 0,
        progress: Progress | None = None,
    ) -> Iterator[Any]:
        """Generate lazily, `batch_size` samples at a time; endless if `num` is None.

        Args:
            num: how many; None never ends.
            as_: `"sample"`, `"ase"` or `"pymatgen"`.
            start: index of the first sample.
            progress: called with (samples made, `num`), ahead of what has been yielded.

        Raises:
            ValueError: an argument has an impossible value, or the model cannot follow the
                recipe (`num_atoms` beyond its training set).

        Example:
            >>> from adit_plugins import ADiTGenerator
            >>> for atoms in ADiTGenerator(num_steps=10, batch_size=2).stream(as_="ase"):
            ...     if len(atoms) > 1:
            ...         break
        """
        if as_ not in _CONVERTERS:
            raise ValueError(f"Unknown form as_={as_!r}. Known: {', '.join(_CONVERTERS)}.")
        if num is not None:
            num = _checked_integer("num", num, 1)
        start = _checked_integer("start", start, 0)
        indices = count(start) if num is None else iter(range(start, start + num))

        def report(done: int) -> None:
            if progress is not None:
                progress(done, num)

        return map(_CONVERTERS[as_], self._sample_indices(self.seed, indices, report))

    def sample_ids(self, ids: Sequence[str]) -> list[Sample]:
        """Make samples again from their ids `"checkpoint/seed/index"`, in the given order.

        The kind and the other settings are this generator's; only the seed comes from the id.
        An id means the same sample again under the recipe in the provenance of the first.

        Raises:
            ValueError: an id cannot be read, or names another checkpoint.

        Example:
            >>> from adit_plugins import ADiTGenerator
            >>> generator = ADiTGenerator(num_steps=10)
            >>> sample = generator.samples(3)[2]
            >>> again, = generator.sample_ids([sample.id])
            >>> bool((again.atomic_numbers == sample.atomic_numbers).all())
            True
        """
        ids = [ids] if isinstance(ids, str) else ids
        parsed = [_parse_id(text) for text in ids]
        for text, (checkpoint, _, _) in zip(ids, parsed, strict=True):
            if checkpoint != self.model.name:
                raise ValueError(
                    f"id {text!r} is of checkpoint {checkpoint!r}, this generator has "
                    f"{self.model.name!r}; use ADiTGenerator(checkpoint={checkpoint!r}, ...)"
                )
        by_seed: dict[int, list[int]] = {}
        for _, seed, index in dict.fromkeys(parsed):
            by_seed.setdefault(seed, []).append(index)
        made = {
            (seed, index): sample
            for seed, indices in by_seed.items()
            for index, sample in zip(
                indices, self._sample_indices(seed, iter(indices)), strict=True
            )
        }
        return [made[seed, index] for _, seed, index in parsed]

    def _sample_indices(
        self, seed: int, indices: Iterator[int], report: Callable[[int], None] | None = None
    ) -> Iterator[Sample]:
        made = 0
        while chunk := list(islice(indices, min(self.batch_size, sys.maxsize))):

            def progress(done: int, _total: int, before: int = made) -> None:
                if report is not None:
                    report(before + done)

            batch = self.model.sample(
                len(chunk),
                kind=self.kind,
                num_steps=self.num_steps,
                guidance_scale=self.guidance_scale,
                seed=seed,
                num_atoms=self.num_atoms,
                indices=chunk,
                sampler=self.sampler,
                progress=progress,
            )
            made += len(chunk)
            if not bool(batch.positions.isfinite().all() and batch.lattice.isfinite().all()):
                raise ValueError(
                    f"the network's output is not finite at guidance_scale={self.guidance_scale:g} "
                    f"(samples {chunk[0]}..{chunk[-1]} of seed {seed}); take a smaller one, "
                    "or the weights are damaged: see adit doctor"
                )
            yield from from_batch(batch, [self._provenance(seed, index) for index in chunk])

    def _provenance(self, seed: int, index: int) -> dict[str, Any]:
        model = self.model
        return {
            "id": f"{model.name}/{seed}/{index}",
            "checkpoint": model.name,
            "checkpoint_hash": model.hash,
            "kind": self.kind,
            "seed": seed,
            "index": index,
            "num_steps": self.num_steps,
            "guidance_scale": self.guidance_scale,
            "num_atoms": self.num_atoms,
            "sampler": self.sampler,
            "licence": model.config.provenance.get("licence", "not stated"),
            "version": __version__,
        }


@lru_cache(maxsize=2)
def _load_model(checkpoint: str | None, device: str | None, last_change: int) -> ADiT:
    from adit_model import ADiT

    return ADiT.from_pretrained(checkpoint, device=device)


def _last_change(checkpoint: str | None) -> int:
    """When a folder or file was written (ns), so that weights trained anew are loaded anew."""
    if checkpoint is None or not Path(checkpoint).exists():
        return 0
    path = Path(checkpoint)
    files = path.iterdir() if path.is_dir() else [path]
    return max((p.stat().st_mtime_ns for p in files), default=0)


def _parse_id(text: str) -> tuple[str, int, int]:
    parts = str(text).rsplit("/", 2)
    if len(parts) != 3 or not parts[0] or not (parts[1].isdecimal() and parts[2].isdecimal()):
        raise ValueError(
            f"cannot read the id {text!r}; it has the form checkpoint/seed/index, "
            "such as 'adit-joint/0/17'"
        )
    return parts[0], int(parts[1]), int(parts[2])


def _check_sampler(sampler: str) -> None:
    from adit_model.samplers import SAMPLERS

    if sampler not in SAMPLERS:
        raise ValueError(f"Unknown sampler {sampler!r}. Known: {', '.join(SAMPLERS)}.")


def _checked_integer(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} is {value!r}; it must be an integer of at least {least}")
    return int(value)
