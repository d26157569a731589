"""ADiTGenerator: a recipe for samples, and the samples it makes."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, overload

from monty.json import MSONable

from adit_plugins._version import __version__
from adit_plugins.generation.composition import CompositionRequest, formula_text, system_text
from adit_plugins.generation.drawing import described, draw_samples
from adit_plugins.generation.recipe import (
    AT_ONCE,
    ENDLESS,
    PRECISIONS,
    check_sampler,
    checked_conditions,
    checked_integer,
    last_change,
    load_model,
    parse_id,
)
from adit_plugins.generation.saved import load_recipe, save_recipe
from adit_plugins.generation.steering import check_steering, find_score
from adit_plugins.structures.samples import KINDS, Convertible, Sample, from_batch

if TYPE_CHECKING:
    from os import PathLike
    from pathlib import Path

    import numpy as np
    from ase import Atoms
    from numpy.typing import NDArray
    from pymatgen.core import Molecule, Structure

    from adit_model import ADiT
    from adit_model.decoding import Drawn

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
        guidance_scale: away from a weaker network (`adit_model.samplers.Guided`); 1 is none, None
            the checkpoint's own.
        seed: of the noise and of the sizes.
        num_atoms: atoms in every sample; None draws sizes from the training histogram.
        batch_size: samples made at once, which changes how long it takes, not the result; None
            for as many as fill the device with samples of equal size (`recipe.AT_ONCE`).
        device: such as `"cpu"` or `"cuda"`; None lets the model choose.
        sampler: `"ancestral"` (fresh noise at each step), `"euler"`, `"heun"`, or `"published"` for
            the sampler of arXiv 2503.03965.
        elements: samples hold nothing but these, such as `["Li", "P", "O"]`.
        exclude_elements: samples hold none of these.
        chemical_system: exactly these, each at least once, such as `"Li-P-O"` or
            `["Li", "P", "O"]`; `*` is one element more, as in `"Li-*-O"`; several systems, as in
            `"Li-Fe-O, Li-Mn-O"`, take turns.
        formula: exact proportions, such as `"LiFePO4"` or pymatgen's `Composition`: a crystal
            holds a multiple of it.
        contains: at least one atom of each of these, such as `["Li", "O"]`.
        conditions: what the network is told besides, by name, such as
            `{"band_gap": 3.0, "space_group": 225}`; `adit doctor` lists a checkpoint's. None
            withholds one that the checkpoint is told by default.
        elements_first: draw the elements from the checkpoint's prior and tell them to the network;
            False has it make elements and geometry at once, None draws where the checkpoint can.
        charge_balanced: draw compositions of crystals until SMACT's rule holds.
        precision: of the network's matrices: `"float32"`, or `"bfloat16"`, which is up to twice as
            fast on CPUs and GPUs that have it and as good; `"auto"` takes it where a short timing
            finds it faster. The same seed gives other samples in the other precision, which is why
            provenance names the one that was used.
        steer: what samples are led to be low in: a function of `ase.Atoms` that returns a number,
            or a name (`adit_plugins.generation.steering`), such as `"energy_above_hull"`,
            `"-density"` or `"density=4.5"`. Particles compete for each sample (Feynman-Kac
            steering, arXiv 2501.06848); where the function fails, a particle counts as the worst.
        steer_weight: of a unit of the score in the exponent of a particle's weight; None takes 2
            over the standard deviation of a sample's particles at their first comparison.
        particles: that compete for each sample, each at the cost of a sample.
        workers: processes that make samples, of one thread each; 0 for none, this process makes
            them; None for one a core of a CPU, where there are so many samples that it pays. A
            script that uses processes needs its work under `if __name__ == "__main__":`.

    Raises:
        ValueError: a field has an impossible value; the message names the allowed ones.

    Examples:
        >>> from adit_plugins import ADiTGenerator
        >>> generator = ADiTGenerator(kind="crystal", num_steps=10, seed=1)
        >>> structures = generator.generate(2)
        >>> ADiTGenerator.from_dict(generator.as_dict()) == generator
        True
    """

    kind: Literal["crystal", "molecule"] = "crystal"
    checkpoint: str | None = None
    num_steps: int = 50
    guidance_scale: float | None = None
    seed: int = 0
    num_atoms: int | None = None
    batch_size: int | None = None
    device: str | None = None
    sampler: str = "ancestral"
    elements: list[str] | None = None
    exclude_elements: list[str] | None = None
    chemical_system: str | None = None
    formula: str | None = None
    contains: list[str] | None = None
    conditions: dict[str, float | int | None] | None = None
    elements_first: bool | None = None
    charge_balanced: bool = False
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    steer: Callable[[Atoms], float] | str | None = None
    steer_weight: float | None = None
    particles: int = 4
    workers: int | None = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"Unknown kind {self.kind!r}. Known: {', '.join(KINDS)}.")
        # Plain integers, as those of numpy would not survive JSON.
        self.num_steps = checked_integer("num_steps", self.num_steps, 1)
        self.seed = checked_integer("seed", self.seed, 0)
        if self.batch_size is not None:
            self.batch_size = checked_integer("batch_size", self.batch_size, 1)
        if self.workers is not None:
            self.workers = checked_integer("workers", self.workers, 0)
            if self.workers and callable(self.steer):
                raise ValueError("workers take a score by its name: steer='module:function'")
        if self.num_atoms is not None:
            self.num_atoms = checked_integer("num_atoms", self.num_atoms, 1)
        scale = self.guidance_scale
        if scale is not None:
            if not (isinstance(scale, Real) and math.isfinite(scale) and scale >= 0):
                raise ValueError(
                    f"guidance_scale is {scale!r}; it must be a finite number >= 0 "
                    "(1 is no guidance), or None for the checkpoint's own"
                )
            self.guidance_scale = float(scale)
        if self.sampler != "ancestral":  # a look at the rules imports torch
            check_sampler(self.sampler)
        if self.checkpoint is not None:
            self.checkpoint = str(self.checkpoint)  # a Path would not survive JSON
        self.chemical_system = system_text(self.chemical_system)
        self.formula = formula_text(self.formula)
        for name in ("elements", "exclude_elements", "contains"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise ValueError(f"{name} must be a list of symbols; got {value!r}")
            setattr(self, name, None if value is None else [str(symbol) for symbol in value])
        if self.num_atoms is not None:
            self.composition.check_size(self.num_atoms, self.kind)
        else:
            _ = self.composition  # refuses impossible requests now
        self.conditions = checked_conditions(self.conditions)
        check_steering(self)
        for name, allowed in (
            ("elements_first", (True, False, None)),
            ("charge_balanced", (True, False)),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}; got {getattr(self, name)!r}")
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision must be one of {', '.join(PRECISIONS)}; got {self.precision!r}"
            )
        if self.charge_balanced and (self.kind != "crystal" or self.elements_first is False):
            raise ValueError(
                "charge_balanced draws compositions of crystals: it needs kind='crystal' and the "
                "elements first"
            )

    @property
    def composition(self) -> CompositionRequest:
        """The request on the samples' elements; false if there is none."""
        return CompositionRequest(
            None if self.elements is None else tuple(self.elements),
            None if self.exclude_elements is None else tuple(self.exclude_elements),
            self.chemical_system,
            self.formula,
            None if self.contains is None else tuple(self.contains),
        )

    @property
    def model(self) -> ADiT:
        """The network, loaded at the first use."""
        return load_model(self.checkpoint, self.device, last_change(self.checkpoint))

    def check(self) -> None:
        """Load the weights and find out, by a sample of few steps, whether they can do it.

        Raises:
            ValueError: missing or damaged weights, or the model cannot follow the recipe.
        """
        if self.steer is not None:
            find_score(self.steer, self.kind)
        few = min(self.num_steps, 2)
        dataclasses.replace(  # without steering: noise scores nothing
            self, num_steps=few, guidance_scale=1.0, steer=None, steer_weight=None, workers=0
        ).samples(1)

    def save(self, path: str | PathLike[str]) -> Path:  # type: ignore[override]
        """Write the recipe as MSON; ASE reads a file named `.adit` as a stream of samples."""
        return save_recipe(self, path)

    @classmethod
    def load(  # type: ignore[override]
        cls, path: str | PathLike[str], **changes: Any
    ) -> ADiTGenerator:
        """Read a saved recipe, with some of its fields changed.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no saved generator.
        """
        return load_recipe(cls, path, **changes)

    def generate(self, num: int = 16) -> list[Structure | Molecule]:
        """Return pymatgen structures (crystals) or molecules, with provenance.

        Raises:
            ValueError: `num` is not a positive integer, or the model cannot follow the recipe.

        Examples:
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
        """Generate lazily, many samples at a time (`batch_size`); endless if `num` is None.

        Args:
            num: how many; None never ends.
            as_: `"sample"`, `"ase"` or `"pymatgen"`.
            start: index of the first sample.
            progress: called with (samples made, `num`), ahead of what has been yielded.

        Raises:
            ValueError: an argument has an impossible value, or the model cannot follow the
                recipe (`num_atoms` beyond its training set).

        Examples:
            >>> from adit_plugins import ADiTGenerator
            >>> for atoms in ADiTGenerator(num_steps=10, batch_size=2).stream(as_="ase"):
            ...     if len(atoms) > 1:
            ...         break
        """
        if as_ not in _CONVERTERS:
            raise ValueError(f"Unknown form as_={as_!r}. Known: {', '.join(_CONVERTERS)}.")
        if num is not None:
            num = checked_integer("num", num, 1)
        start = checked_integer("start", start, 0)

        def report(done: int) -> None:
            if progress is not None:
                progress(done, num)

        return map(_CONVERTERS[as_], self._samples(num, start, report))

    def sample_ids(self, ids: Sequence[str]) -> list[Sample]:
        """Make samples again from their ids `"checkpoint/seed/index"`, in the given order.

        The kind and the other settings are this generator's; only the seed comes from the id.
        An id means the same sample again under the recipe in the provenance of the first.

        Raises:
            ValueError: an id cannot be read, or names another checkpoint.

        Examples:
            >>> from adit_plugins import ADiTGenerator
            >>> generator = ADiTGenerator(num_steps=10)
            >>> sample = generator.samples(3)[2]
            >>> again, = generator.sample_ids([sample.id])
            >>> bool((again.atomic_numbers == sample.atomic_numbers).all())
            True
        """
        ids = [ids] if isinstance(ids, str) else ids
        parsed = [parse_id(text) for text in ids]
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
                indices,
                self._sample_indices(seed, iter(indices), None, self.at_once(len(indices))),
                strict=True,
            )
        }
        return [made[seed, index] for _, seed, index in parsed]

    def variations(
        self, structure: Convertible, num: int = 8, strength: float = 0.3
    ) -> list[Sample]:
        """Structures near a given one: its latent with noise, denoised again.

        Args:
            structure: Atoms, Structure, Molecule, Mol or Sample of any kind; crystals are taken
                in their Niggli cell.
            num: how many.
            strength: share of noise, above 0 (nearly the structure) up to 1 (a fresh sample).

        Raises:
            ValueError: strength is out of range, or the structure is larger than any that the
                model was trained on.

        Examples:
            >>> from ase.build import bulk
            >>> from adit_plugins import ADiTGenerator
            >>> near = ADiTGenerator(num_steps=10).variations(bulk("NaCl", "rocksalt", 5.6), 2)
            >>> len(near)
            2
        """
        from adit_plugins.generation.variations import make_variations

        return make_variations(self, structure, num, strength)

    def encode(self, structures: Convertible | Sequence[Convertible]) -> list[NDArray[np.float32]]:
        """Latents of structures, standardised as the diffusion transformer sees them.

        Structures are brought into the form of the training data first: a crystal into its
        primitive Niggli cell, a molecule to its principal axes.

        Args:
            structures: one or a list of Atoms, Structure, Molecule, Mol or Sample; both kinds
                may be mixed.

        Returns:
            For each a row for each of its atoms, in the order given `[num_atoms, latent_dim]`.
            Atoms of a crystal that a lattice translation maps onto each other have equal rows.

        Raises:
            TypeError: one is no structure.
            ValueError: one has no cell that can be reduced; the message names its place.

        Examples:
            >>> from ase.build import bulk
            >>> from adit_plugins import ADiTGenerator
            >>> ADiTGenerator().encode(bulk("NaCl", "rocksalt", 5.6, cubic=True))[0].shape
            (8, 8)
        """
        from adit_plugins.generation.latents import encode

        return encode(self.model, structures)

    def reconstruct(self, structures: Convertible | Sequence[Convertible]) -> list[Sample]:
        """Encode structures and decode them again, without noise: what the latents can hold.

        They go through the form of the training data, as in `encode`, and come back in the cell,
        order and orientation in which they were given.

        Raises:
            TypeError: one is no structure.
            ValueError: one has no cell that can be reduced; the message names its place.
        """
        from adit_plugins.generation.latents import reconstruct

        return reconstruct(self.model, structures)

    def complete(
        self,
        structure: Convertible,
        num: int = 8,
        *,
        num_atoms: int | Sequence[int] | None = None,
        fixed: Sequence[int] | None = None,
        elements: str | Sequence[str] | None = None,
        replace: str | Sequence[str] | None = None,
    ) -> list[Sample]:
        """Fill a structure in: given atoms, and a crystal's cell, stay exactly where they are.

        Args:
            structure: a host crystal, or the atoms of a molecule's scaffold or fragments with the
                places that they have to each other; Atoms, Structure, Molecule, Mol or Sample.
            num: how many completions.
            num_atoms: atoms of a completion, the given ones included; several let each draw one
                of them. By default as many as `structure` has where atoms of it are taken away,
                else drawn.
            fixed: indices of the atoms that are given; by default all that `replace` leaves.
            elements: of the atoms that are added: exactly these as a formula (`"Li2O"`), or any of
                a list (`["Li"]`); by default any, in a crystal but those that `replace` names.
            replace: symbols of atoms that are taken away and drawn anew, such as `["Co"]`.

        Returns:
            Completions: the given atoms in their order, then the added ones.

        Raises:
            ValueError: an argument is impossible, or no completion fits the training data.

        Examples:
            >>> from ase.build import bulk
            >>> from adit_plugins import ADiTGenerator
            >>> salt = bulk("NaCl", "rocksalt", 5.6)
            >>> made = ADiTGenerator(num_steps=10).complete(salt, 2, fixed=[1], elements="K")
            >>> made[0].atomic_numbers.tolist()
            [17, 19]
        """
        from adit_plugins.generation.completion import complete
        from adit_plugins.generation.completion_task import make_task

        return complete(self, make_task(structure, num_atoms, fixed, elements, replace), num)

    def _samples(
        self, num: int | None, start: int, report: Callable[[int], None]
    ) -> Iterator[Sample]:
        from adit_plugins.generation.parallel import num_processes, samples_of

        if num is not None and (workers := num_processes(self, num)):
            yield from samples_of(self, num, start, workers, report)
            return
        indices = count(start) if num is None else iter(range(start, start + num))
        yield from self._sample_indices(self.seed, indices, report, self.at_once(num))

    def at_once(self, num: int | None = None) -> int:
        """How many samples are drawn together; `num`, if known, is divided into equal parts.

        They are then grouped by size, and small groups are slow (`benchmarks/sampling_speed.py`).
        """
        if self.batch_size is not None:
            return min(self.batch_size, sys.maxsize)
        most = AT_ONCE.get(self.model.device.type, AT_ONCE["cpu"])
        if self.steer is not None:
            most = max(1, most // self.particles)
        return min(most, ENDLESS) if num is None else math.ceil(num / math.ceil(num / most))

    def _sample_indices(
        self,
        seed: int,
        indices: Iterator[int],
        report: Callable[[int], None] | None,
        at_once: int,
    ) -> Iterator[Sample]:
        made = 0
        while chunk := list(islice(indices, at_once)):

            def progress(done: int, _total: int, before: int = made) -> None:
                if report is not None:
                    report(before + done)

            drawn = draw_samples(self, seed, chunk, progress)
            batch = drawn.batch
            made += len(chunk)
            if not bool(batch.positions.isfinite().all() and batch.lattice.isfinite().all()):
                raise ValueError(
                    f"the network's output is not finite at guidance_scale={self.guidance():g} "
                    f"(samples {chunk[0]}..{chunk[-1]} of seed {seed}); take a smaller one, "
                    "or the weights are damaged: see adit doctor"
                )
            yield from from_batch(batch, self._told(seed, chunk, drawn))

    def _told(self, seed: int, indices: list[int], drawn: Drawn) -> list[dict[str, Any]]:
        """Provenance, with how the elements were taken and which particle won."""
        made = [self.provenance(seed, index) for index in indices]
        if drawn.agreement is not None:
            for each, share in zip(made, drawn.agreement.tolist(), strict=True):
                each["elements_agreement"] = round(share, 3)
        for each, report in zip(made, drawn.steering or (), strict=False):
            each["steering"] = report
        return made

    def guidance(self, kind: str | None = None) -> float:
        """The guidance scale that samples of a kind (by default this one's) are made with."""
        if self.guidance_scale is not None:
            return self.guidance_scale
        return self.model.config.guidance_scales.get(kind or self.kind, 1.0)

    def provenance(self, seed: int, index: int) -> dict[str, Any]:
        """What is recorded with sample `index` of a seed."""
        model = self.model
        return {
            "id": f"{model.name}/{seed}/{index}",
            "checkpoint": model.name,
            "checkpoint_hash": model.hash,
            "kind": self.kind,
            "seed": seed,
            "index": index,
            "num_steps": self.num_steps,
            "guidance_scale": self.guidance(),
            "num_atoms": self.num_atoms,
            "sampler": self.sampler,
            "licence": model.config.provenance.get("licence", "not stated"),
            "version": __version__,
        } | described(self)
