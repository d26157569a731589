"""ASE's format `adit`: a saved generator (`ADiTGenerator.save`), read as a stream of samples.

    for atoms in ase.io.iread("joint.adit", index=slice(0, 1000)): ...
    ase.io.read("joint.adit@0:16", kind="molecule", seed=3)

Frame i of a file is sample i of its seed; nothing else is in the file. A stream has no last
frame: see `read_adit` for what open slices mean. Every program that uses `ase.io` imports this
module, so it imports nothing that is not loaded by then.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from ase.calculators import calculator as ase_calculators
from ase.utils.plugins import ExternalIOFormat, ExternalViewer

if TYPE_CHECKING:
    from os import PathLike

    from ase import Atoms

__all__ = ["adit_format", "adit_viewer", "read_adit", "stream"]

NUM = 16  # where an index has no end

# "+S": many frames, and the reader is given the file's name
adit_format = ExternalIOFormat(
    desc="ADiT generator (a stream of samples)",
    code="+S",
    module="adit_plugins.hosts.ase_io",
    ext="adit",
)
# `ase.visualize.view(atoms, viewer="adit")`: the module is imported when it is used.
adit_viewer = ExternalViewer(
    desc="A page in the browser (adit-plugins)", module="adit_plugins.report.notebook"
)


class ADiTCHGNet:
    """CHGNet without a download, as ASE's calculator "adit-chgnet": `ase run adit-chgnet FILE`.

    Making one loads CHGNet and returns its calculator; until then nothing is imported.
    """

    nolabel = True  # for `ase run`, which gives other calculators a file name

    def __new__(cls) -> Any:
        """Return energies, forces and stresses for crystals (eV, angstrom)."""
        from adit_plugins import registry

        return registry.load("adit.relaxers", "chgnet")().calculator


if "adit-chgnet" not in ase_calculators.external_calculators:
    ase_calculators.register_calculator_class("adit-chgnet", ADiTCHGNet)


def read_adit(filename: str, index: slice | str, num: int = NUM, **recipe: Any) -> Iterator[Atoms]:
    """Yield the samples that an index names, made as they are asked for.

    Args:
        filename: a file of `ADiTGenerator.save`.
        index: as in ASE; `a:b` are the samples a to b - 1. Without an end, `a:` are `num` samples
            from a on; negative numbers count back from sample `num`.
        num: samples of an open slice.
        recipe: fields of `ADiTGenerator` in the place of the saved ones: kind, seed, num_steps...

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no saved generator, the index is no slice, or a setting is impossible.
    """
    from adit_plugins.generation.generator import ADiTGenerator
    from adit_plugins.generation.recipe import checked_integer

    if not isinstance(index, slice):  # a text that ASE could not read as numbers
        raise ValueError(f"{filename}: {index!r} is no index; give a number or start:stop:step")
    wanted = iter(sample_numbers(index, checked_integer("num", num, 1)))
    generator = ADiTGenerator.load(filename, **recipe)
    # `read(file, 20)` reaches us as "20:", of which only the first is taken.
    size = 1 if index.stop is None else generator.at_once()
    while numbers := list(islice(wanted, size)):
        ids = [f"{generator.model.name}/{generator.seed}/{i}" for i in numbers]
        yield from (sample.to_ase() for sample in generator.sample_ids(ids))
        size = generator.at_once()


def sample_numbers(index: slice, num: int) -> range:
    """Return the samples that a slice of an endless stream names; see `read_adit`."""
    start, stop, step = index.start, index.stop, 1 if index.step is None else index.step
    if step > 0 and all(bound is None or bound >= 0 for bound in (start, stop)):
        start = start or 0
        return range(start, start + num if stop is None else stop, step)
    return range(max(num, (start or 0) + 1))[index]


def stream(
    source: str | PathLike[str] | None = None, num: int | None = None, start: int = 0, **recipe: Any
) -> Iterator[Atoms]:
    """Generate ASE Atoms lazily, in constant memory; endless if `num` is None.

    For `ase.io.write(..., append=True)`, `Trajectory`, `ase.db` and loops of your own. The
    provenance is in `info["adit"]`.

    Args:
        source: a file of `ADiTGenerator.save`; None for the defaults of `ADiTGenerator`.
        num: how many.
        start: number of the first sample.
        recipe: fields of `ADiTGenerator`, in the place of the saved ones.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no saved generator, or a setting is unknown or impossible.

    Examples:
        >>> from itertools import islice
        >>> from adit_plugins import stream
        >>> molecules = stream(kind="molecule", num_steps=10, batch_size=2)
        >>> [atoms.info["adit"]["index"] for atoms in islice(molecules, 3)]
        [0, 1, 2]
    """
    from adit_plugins.generation.generator import ADiTGenerator

    generator = ADiTGenerator(**recipe) if source is None else ADiTGenerator.load(source, **recipe)
    return generator.stream(num, as_="ase", start=start)
