"""Which symmetry operators a CIF means: those it lists, or those of the setting that it names.

Names, numbers and Hall symbols are resolved by gemmi's table, which has the 530 settings of
International Tables and some more. A name that fits several settings is decided by the cell
(rhombohedral or hexagonal axes, the unique axis); where two origins are left, both are returned.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import gemmi
import numpy as np
from numpy.typing import NDArray

METRIC_TOLERANCE = 0.02  # of a cosine or a relative length squared
_STANDARD = ("", "b", "b1")  # axes of the settings that International Tables begin with
_ORIGINS = {"z": "2", "s": "1", "o1": "1", "o2": "2", "1": "1", "2": "2", "h": "H", "r": "R"}


class Operators(NamedTuple):
    """A space group's operators: `rotations` `[n, 3, 3]` and `translations` `[n, 3]`."""

    rotations: NDArray[np.float64]
    translations: NDArray[np.float64]


IDENTITY = Operators(np.eye(3)[None], np.zeros((1, 3)))


class Named(NamedTuple):
    """What a CIF says of its setting, each empty or 0 if it does not."""

    hall: str = ""
    name: str = ""  # Hermann-Mauguin, in any spelling
    number: int = 0
    code: str = ""  # coordinate system or setting: 1, 2, H, R, b1, cab, ...


@lru_cache(maxsize=256)
def operators_of_list(triplets: tuple[str, ...]) -> Operators:
    """Return the operators that a CIF lists, each once.

    Raises:
        ValueError: one cannot be read, or they are no group, so that some must be missing.
    """
    parsed = {}
    for triplet in triplets:
        try:
            # The fourth part, of a magnetic group, says what happens to moments.
            op = gemmi.Op(re.sub(r",\s*[+-]1$", "", triplet.strip()))
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"its symmetry operator {triplet!r:.40} cannot be read") from error
        parsed[op.wrap().triplet()] = op.wrap()
    parsed.setdefault("x,y,z", gemmi.Op())
    found = _arrays(parsed.values())
    if not _is_closed(found):
        raise ValueError(
            f"its {len(parsed)} symmetry operators are no group: some are missing or wrong"
        )
    return found


def operators_of_setting(named: Named, cell: NDArray[np.float64]) -> list[Operators]:
    """Return the operators of a named setting; two where the origin is not said.

    Args:
        named: what the file says.
        cell: `[3, 3]` lattice vectors as rows, which tell rhombohedral from hexagonal axes.

    Raises:
        ValueError: there is no such setting, what is said contradicts itself, or the cell does
            not have the symmetry.
    """
    halls = [named.hall] if named.hall else [group.hall for group in _settings(named)]
    groups = {hall: _of_hall(hall) for hall in halls}
    misfits = {hall: _misfit(group, cell) for hall, group in groups.items()}
    best = min(misfits.values())
    if best > METRIC_TOLERANCE:
        raise ValueError(f"its cell does not have the symmetry of {_text(named)}")
    fitting = [hall for hall in groups if misfits[hall] < best + 1e-4]
    if named.hall or len(fitting) == 1:
        return [groups[hall] for hall in fitting]
    # Of those that the cell cannot tell apart, the ones with the axes of International Tables.
    standard = {group.hall for group in _settings(named) if group.qualifier in _STANDARD}
    return [groups[hall] for hall in fitting if hall in standard or not standard & set(fitting)]


def _settings(named: Named) -> list[gemmi.SpaceGroup]:
    """All settings that the file can mean.

    Raises:
        ValueError: there is none.
    """
    found, code = _by_name(named.name) if named.name else ([], "")
    if named.name and not found:
        raise ValueError(
            f"its space group {named.name!r:.40} is not known and no symmetry operators are "
            "listed; write them into the file"
        )
    found = found or [group for group in _settings_of_tables() if group.number == named.number]
    if named.number:
        found = [group for group in found if group.number == named.number]
    for each in filter(None, (code, named.code.lower())):
        found = [group for group in found if _has_code(group, each)]
    if not found:
        raise ValueError(f"there is no setting {_text(named)}")
    return found


def _has_code(group: gemmi.SpaceGroup, code: str) -> bool:
    """Return whether it has a code: CIF's (`2`, `R`, `b1`, `1cab`) or ICSD's (`Z`, `S`)."""
    extension = group.ext.strip("\0")
    wanted = _ORIGINS.get(code)
    if wanted is not None:
        return extension == wanted or (not extension and wanted in "12")
    axes = code.lstrip("12") if extension else code
    origin = code[: len(code) - len(axes)]
    return axes == (group.qualifier or "abc") and origin in ("", extension)


@lru_cache(maxsize=1000)
def _by_name(text: str) -> tuple[list[gemmi.SpaceGroup], str]:
    """Settings for a Hermann-Mauguin symbol in any spelling, and the code that it ends with."""
    name, _, code = text.partition(":")
    word, code = _plain(name), code.strip().lower()
    for ending in ("", "o1", "o2", "z", "s", "h", "r"):
        if ending and not word.endswith(ending):
            continue
        found = _lookup(word.removesuffix(ending))
        if found:
            return found, code or ending
    return [], code


def _lookup(word: str) -> list[gemmi.SpaceGroup]:
    names = _names()
    older = re.sub(r"(?<=[a-z])3(?=[mncd]?$)", "-3", word)  # Fm3m, Pa3: written so until 1983
    for each in (word, older, _short(word)):
        if each in names:
            return names[each]
    if "e" in word:  # a glide plane along two axes, which older names call by either of them
        either = [_short(word).replace("e", letter) for letter in "abc"]
        return [group for each in either for group in names.get(each, ())]
    return []


def _short(word: str) -> str:
    """`p21/n21/m21/a` to `pnma`, `f4/m-32/m` to `fm-3m`; what is short stays as it is."""
    if "-3" in word[2:]:
        word = re.sub(r"^([a-z])\d+/", r"\1", word)
    return re.sub(r"(?<![46])21?/(?=[a-z])", "", word)


def _plain(name: str) -> str:
    """Lower case without blanks, underscores and brackets: `P 2(1)/n` and `P2_1/n` to `p21/n`."""
    return re.sub(r"[\s_()'\"~]", "", name).lower()


@lru_cache(maxsize=1)
def _names() -> dict[str, list[gemmi.SpaceGroup]]:
    names: dict[str, list[gemmi.SpaceGroup]] = defaultdict(list)
    for group in gemmi.spacegroup_table():
        words = {_plain(group.hm)}
        if (
            group.crystal_system() == gemmi.CrystalSystem.Monoclinic
        ):  # P 1 21/n 1 is P21/n for short
            lattice, *axes = group.hm.split()
            words.add(_plain(lattice + "".join(axis for axis in axes if axis != "1")))
        for word in words:
            names[word].append(group)
    return dict(names)


@lru_cache(maxsize=1)
def _settings_of_tables() -> list[gemmi.SpaceGroup]:
    """The 530 settings of International Tables; what gemmi adds is meant only where it is named."""
    return list(itertools.islice(gemmi.spacegroup_table(), 530))


@lru_cache(maxsize=256)
def _of_hall(hall: str) -> Operators:
    try:
        return _arrays(gemmi.symops_from_hall(hall))
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"its Hall symbol {hall!r:.40} cannot be read") from error


def _is_closed(group: Operators) -> bool:
    """Return whether each product of two operators is one of them, up to lattice translations."""
    keys = np.random.default_rng(0).integers(1, 2**40, size=12)

    def hashed(rotations: NDArray[np.float64], translations: NDArray[np.float64]) -> NDArray[Any]:
        shifts = np.rint(translations * gemmi.Op.DEN).astype(int) % gemmi.Op.DEN
        turns = np.rint(rotations).astype(int).reshape(*rotations.shape[:-2], 9)
        return np.concatenate([turns, shifts], axis=-1) @ keys

    turned = np.einsum("aij,bjk->abik", group.rotations, group.rotations)
    moved = np.einsum("aij,bj->abi", group.rotations, group.translations)
    products = hashed(turned, moved + group.translations[:, None])
    return bool(np.isin(products, hashed(*group)).all())


def _arrays(group: Iterable[gemmi.Op]) -> Operators:
    seitz = np.array([op.float_seitz() for op in group])
    identity_first = np.argsort(
        [not np.array_equal(each, np.eye(4)) for each in seitz], kind="stable"
    )
    seitz = seitz[identity_first]
    return Operators(np.ascontiguousarray(seitz[:, :3, :3]), seitz[:, :3, 3] % 1.0)


def _misfit(group: Operators, cell: NDArray[np.float64]) -> float:
    """How far the rotations change the metric, as cosines and relative lengths squared."""
    metric = cell @ cell.T
    lengths = np.sqrt(np.diag(metric))
    turned = np.einsum("nki,kl,nlj->nij", group.rotations, metric, group.rotations)
    return float(np.abs((turned - metric) / np.outer(lengths, lengths)).max())


def _text(named: Named) -> str:
    parts: Sequence[str] = [named.hall or named.name, named.code]
    number = f"number {named.number}" if named.number else ""
    return " ".join(part for part in (*parts, number) if part)
