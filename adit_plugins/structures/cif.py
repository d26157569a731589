"""CIF: one data block to one crystal, or the reason why it is none.

The symmetry operators in the file decide; without them the setting that it names does (see
`adit_plugins.structures.space_groups`). What was read is compared with the formula, the number of
formula units and the density that the file gives: a mismatch means that file or reading is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import partial

import gemmi
import numpy as np
from ase import Atoms
from ase.geometry import cellpar_to_cell
from numpy.typing import NDArray

from adit_plugins.structures.cif_blocks import cif_blocks, is_too_long
from adit_plugins.structures.cif_checks import Claims, contradiction, formula_of
from adit_plugins.structures.cif_sites import Site, expand, read_sites
from adit_plugins.structures.cif_values import Tags, first, number, tags_of
from adit_plugins.structures.entries import MAX_LINES, PROVENANCE_TAG, Entry, attempt
from adit_plugins.structures.provenance import KEY
from adit_plugins.structures.space_groups import (
    IDENTITY,
    Named,
    Operators,
    operators_of_list,
    operators_of_setting,
)

_CELL = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
_STRUCTURE = re.compile(r"^\s*_(?:atom_site[_.](?!aniso)|cell[_.]length)", re.I | re.M)
_OPERATORS = ("space_group_symop_operation_xyz", "symmetry_equiv_pos_as_xyz")
_MAGNETIC = ("space_group_symop_magn_operation_xyz", "space_group_symop_magn_centering_xyz")


def parse_cifs(lines: Iterable[str], name: str) -> Iterator[Entry]:
    """Read the data blocks that hold a structure, or began to."""
    for index, block in enumerate(cif_blocks(lines)):
        text = "".join(block)
        if not _STRUCTURE.search(text):
            continue  # comments before the first block, or metadata
        title = f"{name}, block {index} ({block[0].strip()[5:45]})"
        try:
            tags = None if is_too_long(block) else tags_of(text)
        except ValueError as error:
            yield Entry(title, None, str(error), "crystal")
            continue
        if tags is None:
            reason = f"it has more than {MAX_LINES} lines, too many atoms to be judged"
            yield Entry(title, None, reason, "crystal")
        elif _says_anything(tags):
            yield attempt(title, partial(crystal, tags), "crystal")


def _says_anything(tags: Tags) -> bool:
    """Return whether the block is about a structure: not a preamble, not a list of reflections."""
    sites = any(
        any(values) for tag, values in tags.items()
        if tag.startswith("atom_site_") and not tag.startswith("atom_site_aniso")
    )  # fmt: skip
    measured = any(tag.startswith(("refln_", "diffrn_refln_", "pd_")) for tag in tags)
    return sites or (bool(first(tags, "cell_length_a")) and not measured)


def crystal(tags: Tags) -> Atoms:
    """Return the crystal of a block.

    Raises:
        ValueError: something is missing, contradictory, disordered or cannot be represented.
    """
    cell = _cell(tags)
    claims = Claims(
        formula_of(first(tags, "chemical_formula_sum")),
        number(first(tags, "cell_formula_units_z")),
        number(first(tags, "exptl_crystal_density_diffrn")),
    )
    sites = read_sites(tags, claims.formula)
    listed, candidates = _operators(tags, cell)
    if listed and len(candidates[0].rotations) == 1 and not claims.formula:
        _check_identity(tags, cell, sites)
    numbers, frac = _reading(sites, candidates, cell, claims)
    atoms = Atoms(numbers=numbers, scaled_positions=frac, cell=cell, pbc=True)
    provenance = first(tags, PROVENANCE_TAG[1:])
    if provenance:
        atoms.info[KEY] = provenance  # JSON, see `sound`
    return atoms


def _operators(tags: Tags, cell: NDArray[np.float64]) -> tuple[bool, list[Operators]]:
    """Whether operators are listed, and what they are, or what they can be."""
    triplets = next((tags[tag] for tag in _OPERATORS if any(tags.get(tag, ()))), [])
    if triplets:
        return True, [operators_of_list(tuple(_joined(triplets)))]
    magnetic = [tuple(filter(None, tags.get(tag, ()))) for tag in _MAGNETIC]
    if magnetic[0]:
        centred = tuple(f"{a};{b}" for a in magnetic[0] for b in magnetic[1] or ("x,y,z,+1",))
        return True, [operators_of_list(tuple(map(_product, centred)))]
    named = _named(tags)
    if named == Named():
        return False, [IDENTITY]  # nothing is said: all atoms are listed
    return False, operators_of_setting(named, cell)


def _product(pair: str) -> str:
    first_op, second_op = (gemmi.Op(re.sub(r",\s*[+-]1$", "", op)) for op in pair.split(";"))
    return (first_op * second_op).wrap().triplet()


def _joined(values: list[str]) -> Iterator[str]:
    """`x, y, z` without quotes comes in three pieces."""
    piece = ""
    for value in values:
        piece += value
        if piece.count(",") >= 2 and not piece.endswith(","):
            yield piece
            piece = ""
    if piece:
        yield piece


def _named(tags: Tags) -> Named:
    names = tuple(
        f"{tag}_name_h-m{end}"
        for tag, end in (
            ("space_group", "_alt"),
            ("symmetry_space_group", ""),
            ("space_group", "_full"),
            ("space_group", ""),
        )
    )
    numbers = ("space_group_it_number", "symmetry_int_tables_number")
    codes = ("space_group_it_coordinate_system_code", "symmetry_space_group_setting")
    halls = ("space_group_name_hall", "symmetry_space_group_name_hall")
    hall, name, digits, code = (
        next(filter(None, (first(tags, tag) for tag in kind)), "")
        for kind in (halls, names, numbers, codes)
    )
    group = number(digits)
    if group is not None and not (group.is_integer() and 1 <= group <= 230):
        raise ValueError(f"there is no space group number {digits:.20}")
    return Named(hall, name, int(group or 0), code)


def _check_identity(tags: Tags, cell: NDArray[np.float64], sites: list[Site]) -> None:
    """Refuse `x,y,z` alone beside the name of a larger group: one of them is not meant.

    Only a formula could tell whether all atoms are listed or only the asymmetric unit.
    """
    named = _named(tags)
    if named == Named():
        return
    try:
        larger = any(len(each.rotations) > 1 for each in operators_of_setting(named, cell))
    except ValueError:
        return  # a name that means nothing contradicts nothing
    if larger:
        raise ValueError(
            f"it lists no symmetry operator but x,y,z, and its space group is {named.name}; "
            f"whether its {len(sites)} sites are all atoms is not known without a formula"
        )


def _reading(
    sites: list[Site], candidates: list[Operators], cell: NDArray[np.float64], claims: Claims
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Expand the sites; of two origins, by the one that fits formula and density, if one does.

    Raises:
        ValueError: no candidate gives what the file says, or several do.
    """
    fitting, problems = [], []
    for operators in candidates:
        try:
            numbers, frac = expand(sites, operators, cell)
        except ValueError as error:
            problems.append(str(error))
            continue
        problem = contradiction(numbers, cell, claims)
        if problem:
            problems.append(problem)
        else:
            fitting.append((numbers, frac))
    if not fitting:
        raise ValueError(problems[0])
    if len(candidates) > 1 and (len(fitting) > 1 or not claims.tell()):
        raise ValueError(
            "its space group has two origins or settings, and neither operators nor :1 or :2 say "
            "which is meant; write the symmetry operators into the file"
        )
    return fitting[0]


def _cell(tags: Tags) -> NDArray[np.float64]:
    values = []
    for name in _CELL:
        value = number(first(tags, f"cell_{name}"))
        if value is None:
            raise ValueError(f"it has no cell: _cell_{name} is missing or no number")
        values.append(value)
    if min(values) <= 0 or max(values[3:]) >= 180:
        raise ValueError(f"its cell is impossible ({', '.join(f'{v:g}' for v in values)})")
    try:
        cell = np.asarray(cellpar_to_cell(values), dtype=float)
    except (AssertionError, ValueError) as error:
        raise ValueError("its cell is impossible: no such angles can meet") from error
    if not np.isfinite(cell).all():
        raise ValueError("its cell is impossible: no such angles can meet")
    return cell
