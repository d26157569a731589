"""ADiTGenerator: a recipe for samples, and the samples it makes."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import TYPE_CHECKING, Any, Literal, overload

from adit_plugins.generation.drawing import draw_samples
from adit_plugins.generation.on_structures import OnStructures
from adit_plugins.generation.recipe import (
    AT_ONCE,
    ENDLESS,
    checked_integer,
    parse_id,
)
from adit_plugins.generation.saved import load_recipe, save_recipe
from adit_plugins.generation.steering import find_score
from adit_plugins.structures.samples import Sample, from_batch

if TYPE_CHECKING:
    from os import PathLike
    from pathlib import Path

    from ase import Atoms
    from pymatgen.core import Molecule, Structure

    from adit_model.decoding import Drawn

Progress = Callable[[int, int | None], None]

_CONVERTERS: dict[str, Callable[[Sample], Any]] = {
    "sample": lambda sample: sample,
    "ase": Sample.to_ase,
    "pymatgen": Sample.to_pymatgen,
}


@dataclass
class ADiTGenerator(OnStructures):
    """Generate crystals or molecules; every field is a part of the recipe.

    Sample `i` of seed `s` depends on the recipe and on `(s, i)` alone, never on the batch size
    or on what was generated before. The weights are loaded at the first use and shared by all
    generators with the same checkpoint and device.

    Args:
        kind: `"crystal"` or `"molecule"`. Both count their samples from 0 for each seed.
        checkpoint: name, folder, published `.ckpt` file or `hf:OWNER/REPOSITORY` (see
            `ADiT.from_pretrained`); None is the release that ships with the package.
        num_steps: integration steps; more is slower and closer to the model's distribution. None
            takes the checkpoint's own for the kind.
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
        condition_guidance: how hard the drawing of the elements is led by each, such as
            `{"space_group": 2.0}`; 1 is plain, and what is left out is the checkpoint's own.
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

    def check(self) -> None:
        """Load the weights and find out, by a sample of few steps, whether they can do it.

        Raises:
            ValueError: missing or damaged weights, or the model cannot follow the recipe.
        """
        if self.steer is not None:
            find_score(self.steer, self.kind)
        few = min(self.steps(), 2)
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
