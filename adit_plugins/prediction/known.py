"""Known structures that compete with the samples: of the formula, or of others by substitution."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations, product
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from ase import Atoms
from pymatgen.core import Composition, Element

from adit_plugins.generation.substitution import substituted
from adit_plugins.structures.entries import InputError
from adit_plugins.structures.provenance import KEY
from adit_plugins.structures.reading import iter_entries
from adit_plugins.structures.samples import to_sample

if TYPE_CHECKING:
    from adit_plugins.generation.generator import ADiTGenerator

MAX_EXCHANGES = 6  # ways to put the elements of a formula on the places of one structure

Known = list[tuple[str, Atoms]]


def known_structures(
    generator: ADiTGenerator,
    reference: str | PathLike[str] | None,
    seeds: str | PathLike[str] | None,
) -> Known:
    """Return the structures that compete with the samples, by name.

    Raises:
        InputError: a file cannot be read, or has nothing for the search.
        ValueError: seeds are for a formula.
    """
    found: Known = []
    if reference is not None:
        found += read_reference(Path(reference), generator)
    if seeds is not None:
        if generator.formula is None:
            raise ValueError("seeds take the elements of a formula; a chemical system has none")
        found += read_seeds(Path(seeds), generator.formula)
    return found


def read_reference(path: Path, generator: ADiTGenerator) -> Known:
    """Return the crystals of a file or folder that a search could find.

    Args:
        path: any structure file; entries of other formulas or chemical systems are passed over.
        generator: says what is searched for.

    Raises:
        InputError: the file cannot be read, or none of its structures belongs to the search.
    """
    formulas: list[str] = []
    found: Known = []
    for name, atoms in _crystals(path):
        composition = Composition(atoms.get_chemical_formula())
        formulas.append(composition.reduced_formula)
        if _belongs(composition, generator):
            found.append((name, _bare(atoms, name)))
    if not found:
        asked = generator.formula or generator.chemical_system
        raise InputError(f"{path} holds no crystal of {asked}{_others(formulas)}.")
    return found


def read_seeds(path: Path, formula: str) -> Known:
    """Return the crystals of a file with the elements of a formula in their places.

    Where elements of equal number could change places (ABO3), each way is one; of many, those that
    change the electronegativities least.

    Args:
        path: any structure file; entries of other proportions are passed over.
        formula: whose elements they are given.

    Raises:
        InputError: the file cannot be read, or none of its structures has these proportions.
    """
    wanted = Composition(formula).reduced_composition
    formulas: list[str] = []
    found: Known = []
    for name, atoms in _crystals(path):
        composition = Composition(atoms.get_chemical_formula())
        formulas.append(composition.reduced_formula)
        for exchange in _exchanges(composition.reduced_composition, wanted):
            changed = {old: new for old, new in exchange.items() if old != new}
            made, told = atoms, name
            if changed:
                made = to_sample(substituted(atoms, changed).structure).to_ase()
                told = f"{name} ({', '.join(f'{a} to {b}' for a, b in changed.items())})"
            found.append((told, _bare(made, told)))
    if not found:
        raise InputError(
            f"{path} holds no crystal of the proportions of {formula}{_others(formulas)}."
        )
    return found


def _exchanges(old: Composition, new: Composition) -> list[dict[str, str]]:
    """The ways to name the elements of one formula by those of the other, the most alike first."""
    if old.anonymized_formula != new.anonymized_formula:
        return []
    amounts = sorted(set(old.values()))
    groups = [
        ([e.symbol for e, n in old.items() if n == amount],
         [e.symbol for e, n in new.items() if n == amount])
        for amount in amounts
    ]  # fmt: skip
    ways = [
        {a: b for (olds, _), news in zip(groups, chosen, strict=True)
         for a, b in zip(olds, news, strict=True)}
        for chosen in product(*(permutations(news) for _, news in groups))
    ]  # fmt: skip
    return sorted(ways, key=_unlikeness)[:MAX_EXCHANGES]


def _unlikeness(exchange: dict[str, str]) -> float:
    return sum(abs(Element(a).X - Element(b).X) for a, b in exchange.items())


def _crystals(path: Path) -> Iterator[tuple[str, Atoms]]:
    for entry in iter_entries(path):
        if entry.atoms is not None and len(entry.atoms) and entry.atoms.pbc.all():
            yield entry.name, entry.atoms


def _bare(atoms: Atoms, name: str) -> Atoms:
    bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
    bare.info[KEY] = {"id": name, "kind": "crystal"}
    return bare


def _belongs(composition: Composition, generator: ADiTGenerator) -> bool:
    if generator.formula is not None:
        wanted = Composition(generator.formula).reduced_formula
        return bool(composition.reduced_formula == wanted)
    return {element.Z for element in composition} == generator.composition.required()


def _others(formulas: list[str]) -> str:
    names = sorted(set(formulas))
    more = f" and {len(names) - 5} more formulas" if len(names) > 5 else ""
    return f", but {', '.join(names[:5])}{more}" if names else "; it holds no crystals at all"
