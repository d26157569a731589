"""Label structures for the training of a small MACE: `adit train labels`.

Crystals of a table and samples of generators are taken as they are, strained, rattled, compressed
and expanded, or on the way down of an earlier small MACE, and a potential says energy, forces and
stress of each. Shards are written whole, so an interrupted run goes on where it was; several runs
share them by `--part`.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list

from adit_integrations.mace_adit.label_set import MANIFEST, LabelError
from adit_integrations.mace_adit.sources import read_sources
from adit_integrations.mace_adit.teachers import Answer, Teacher, load_teacher
from adit_model.checked import option
from adit_model.outputs import replacing
from adit_model.training.cli import INTERRUPTED, Parser
from adit_model.training.options import add_options, values_of
from adit_plugins.generation.recipe import check_device
from adit_plugins.relax.results import broken_geometry

if TYPE_CHECKING:
    from adit_integrations.mace_adit.relaxer import SmallMace

SHARD = 256  # structures
# How a copy differs from its source, and how often.
WAYS = {"as given": 0.3, "strained": 0.2, "rattled": 0.25, "compressed": 0.25}
MOLECULE_RATTLE = 0.02, 0.15  # angstrom; there is no cell to strain
# Steps that a student takes before a structure is labelled, one of these: it learns where it goes.
STUDENT_STEPS = (0, 0, 2, 5, 12, 30)
STUDENT_BATCH = 16
MIN_DISTANCE = 0.6  # angstrom; nearer, a teacher itself only extrapolates


def disturbed(atoms: Atoms, rng: np.random.Generator) -> tuple[Atoms, str]:
    """Return a copy that differs from a structure in one of the `WAYS`, and which."""
    way = str(rng.choice(list(WAYS), p=list(WAYS.values())))
    if way == "as given":
        return atoms.copy(), way
    strain, rattle, volume = {
        "strained": (0.04, 0.03, 1.0),
        "rattled": (0.01, rng.uniform(0.03, 0.3), 1.0),
        "compressed": (0.02, rng.uniform(0.0, 0.1), rng.uniform(0.55, 1.35)),
    }[way]
    copy = atoms.copy()
    if not atoms.pbc.all():
        copy.positions += rng.normal(0, rng.uniform(*MOLECULE_RATTLE), (len(copy), 3))
        return copy, "rattled"
    symmetric = rng.normal(0, strain, (3, 3))
    deformation = np.eye(3) * volume ** (1 / 3) + (symmetric + symmetric.T) / 2
    copy.set_cell(atoms.cell.array @ deformation, scale_atoms=True)
    copy.positions += rng.normal(0, rattle, (len(copy), 3))
    return copy, way


def descended(
    structures: Sequence[tuple[Atoms, str]], student: SmallMace, seed: Sequence[int]
) -> list[tuple[Atoms, str]]:
    """Return structures of which the student relaxed most for some of `STUDENT_STEPS`.

    Where it fails, for lack of an element or in a hole of its energy, a structure stays as it was.
    """
    from adit_integrations.mace_adit.batched_fire import relax_together
    from adit_integrations.mace_adit.relaxer import ENERGY_BOUNDS

    found = list(structures)
    steps = np.random.default_rng(seed).choice(STUDENT_STEPS, len(found))
    for num in sorted(set(steps.tolist()) - {0}):
        places = [i for i in np.flatnonzero(steps == num).tolist() if found[i][0].pbc.all()]
        for start in range(0, len(places), STUDENT_BATCH):
            chosen = places[start : start + STUDENT_BATCH]
            results = relax_together(
                [found[i][0] for i in chosen],
                student.evaluate,
                name="student",
                fmax=0.01,
                max_steps=num,
                max_seconds=60.0,
                energy_bounds=ENERGY_BOUNDS,
                elements=frozenset(student.config.known),
            )
            for i, result in zip(chosen, results, strict=True):
                if not result.failed:
                    way = found[i][1].split(": ")[0]
                    found[i] = result.atoms, f"{way}: descended"
    return found


def copies(
    sources: dict[str, list[Atoms]], num_copies: int, seed: int
) -> Iterator[list[tuple[Atoms, str]]]:
    """Yield the structures of each shard; the same ones for the same sources and seed."""
    items = [(name, i) for name, found in sources.items() for i in range(len(found))] * num_copies
    order = np.random.default_rng(seed).permutation(len(items))
    for start in range(0, len(order), SHARD):
        rng = np.random.default_rng([seed, start])
        shard = []
        for place in order[start : start + SHARD]:
            name, i = items[place]
            copy, way = disturbed(sources[name][i], rng)
            shard.append((copy, f"{name}: {way}"))
        yield shard


def write_shard(path: Path, structures: Sequence[tuple[Atoms, str]], teacher: Teacher) -> int:
    """Label structures and write them; returns how many have labels."""
    from pymatgen.core import Composition

    usable = [
        (atoms, way)
        for atoms, way in structures
        if not broken_geometry(atoms, "", False)
        and not len(neighbor_list("i", atoms, MIN_DISTANCE))
    ]
    usable.sort(key=lambda each: len(each[0]))
    kept: list[tuple[Atoms, str, Answer]] = []
    for start in range(0, len(usable), teacher.batch):
        batch = usable[start : start + teacher.batch]
        answers = teacher.say([atoms for atoms, _ in batch])
        for (atoms, way), answer in zip(batch, answers, strict=True):
            if answer is not None:
                kept.append((atoms, way, answer))
    if not kept:
        return 0
    formulas = [Composition(atoms.get_chemical_formula()).reduced_formula for atoms, _, _ in kept]
    arrays: dict[str, Any] = {
        "num_atoms": np.array([len(atoms) for atoms, _, _ in kept]),
        "numbers": np.concatenate([atoms.numbers for atoms, _, _ in kept]),
        "positions": np.concatenate([atoms.positions for atoms, _, _ in kept]),
        "cells": np.stack([atoms.cell.array * atoms.pbc.all() for atoms, _, _ in kept]),
        "energy": np.array([answer.energy for _, _, answer in kept]),
        "forces": np.concatenate([answer.forces for _, _, answer in kept]),
        "stress": np.stack([answer.stress for _, _, answer in kept]),
        "group": np.array(formulas),
        "way": np.array([way for _, way, _ in kept]),
    }
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
    return len(kept)


@dataclass(frozen=True)
class LabelOptions:
    """What is labelled, and how."""

    out: Path = option(MISSING, "folder of the shards", metavar="DIR")
    teacher: str = option(
        "chgnet", "the potential, as `adit relax --relaxer` names it, e.g. sevennet:l3i5"
    )
    copies: int = option(2, "of each structure")
    student: str | None = option(
        None, "a small MACE (or mace-adit) that goes some steps down first", metavar="DIR"
    )
    max_atoms: int = option(20, "larger cells are left out")
    limit: int | None = option(None, f"structures to label, in shards of {SHARD}; all by default")
    minutes: float | None = option(None, "stop after this time; a later run goes on")
    seed: int = option(0, "of the disturbances")
    part: str = option("1/1", "K/N labels each N-th shard from the K-th: N runs share --out")
    device: str = option("cpu", "cpu, cuda, ...")

    def __post_init__(self) -> None:
        for name in ("copies", "max_atoms", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise LabelError(f"--{name.replace('_', '-')} must be at least 1; got {value}")
        if self.seed < 0:
            raise LabelError(f"--seed must be at least 0; got {self.seed}")
        if self.minutes is not None and not self.minutes > 0:
            raise LabelError(f"--minutes must be above 0; got {self.minutes}")
        self.own_part()

    def own_part(self) -> tuple[int, int]:
        """Return which part is this run's, from 0, and how many there are.

        Raises:
            LabelError: `part` is not K/N.
        """
        try:
            part, num = map(int, self.part.split("/"))
        except ValueError:
            part, num = 0, 0
        if not 1 <= part <= num:
            raise LabelError(f"--part must be K/N with K from 1 to N, such as 2/4; got {self.part}")
        return part - 1, num


def parser() -> argparse.ArgumentParser:
    """All options of the command."""
    p = Parser(prog="adit train labels", description=__doc__.splitlines()[0])
    p.add_argument(
        "sources", nargs="+", type=Path, metavar="FILE", help="tables (.parquet) and structures"
    )
    add_options(p, LabelOptions)
    return p


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    args = parser().parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _run(args.sources, LabelOptions(**values_of(LabelOptions, args)))
    except KeyboardInterrupt:
        print("Interrupted; the same command goes on.", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2


def _run(paths: Sequence[Path], options: LabelOptions) -> int:
    start = time.monotonic()
    warnings.filterwarnings("ignore")  # of formats and radii: what is unusable has no label
    sources = read_sources(paths, options.max_atoms)
    if options.out.exists() and not options.out.is_dir():
        raise LabelError(f"--out {options.out} is a file; choose a folder")
    student = _student(options.student, options.device)
    teacher = load_teacher(options.teacher, options.device)
    options.out.mkdir(parents=True, exist_ok=True)
    _check_manifest(options, teacher, {name: len(found) for name, found in sources.items()})
    total, there, (own, parts) = 0, 0, options.own_part()
    for i, structures in enumerate(copies(sources, options.copies, options.seed)):
        path = options.out / f"shard-{i:05d}.npz"
        if options.limit is not None and i * SHARD >= options.limit:
            break
        if path.is_file() or i % parts != own:
            there += path.is_file()
            continue
        if options.minutes is not None and time.monotonic() - start > 60 * options.minutes:
            break
        if student is not None:
            structures = descended(structures, student, [options.seed, i])
        num = write_shard(path, structures, teacher)
        total += num
        if not total and not any(options.out.glob("shard-*.npz")):
            raise LabelError(
                f"{teacher.name} gave no label for {len(structures)} structures; the last reason: "
                f"{teacher.problem or 'atoms too near to each other'}. Choose other structures or "
                "another --teacher."
            )
        seconds = time.monotonic() - start
        print(f"{path.name}: {num} of {len(structures)} labelled; {total} in {seconds:.0f} s")
        sys.stdout.flush()
    before = f"; {there} shards were there" if there else ""
    print(f"{total} structures labelled into {options.out}{before}")
    return 0


def _student(name: str | None, device: str) -> SmallMace | None:
    from adit_integrations.mace_adit import relaxer as mace_adit

    if name is None:
        return None
    check_device(device)
    return mace_adit.SmallMace(_weights(name), device)


def _checksum(name: str | None) -> str | None:
    """Of the student's weights: the same name may have others tomorrow."""
    from adit_integrations.mace_adit.network import read_config

    return None if name is None else read_config(_weights(name))[2]


def _weights(name: str) -> Path:
    from adit_integrations.mace_adit import relaxer as mace_adit

    return mace_adit.folder_of(None if name == mace_adit.NAME else name)


def _check_manifest(options: LabelOptions, teacher: Teacher, counts: dict[str, int]) -> None:
    """Refuse to mix the shards of two different runs in a folder.

    Raises:
        LabelError: the folder's shards come from other sources or options.
    """
    path = options.out / MANIFEST
    ours = {
        "teacher": teacher.name,
        "convention": teacher.convention,
        "sources": counts,
        "copies": options.copies,
        "student": _checksum(options.student),
        "max_atoms": options.max_atoms,
        "seed": options.seed,
    }
    if path.is_file():
        try:
            theirs = json.loads(path.read_text())
        except ValueError as error:
            raise LabelError(f"{path} is damaged: {error}. Choose another --out.") from error
        different = [name for name in ours if theirs.get(name) != ours[name]]
        if different:
            raise LabelError(
                f"{options.out} holds labels of another run ({', '.join(different)} differ). "
                "Choose another --out."
            )
        return
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(ours, indent=2))


if __name__ == "__main__":
    sys.exit(main())
