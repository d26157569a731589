"""DFT by any ASE calculator: energies, elemental references of the same settings, verdicts.

An engine is found by name in the entry-point group `adit.dft`: a factory `(options)` that returns a
`DftEngine`; `options` are numbers and texts such as `{"cutoff": 400.0}`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule

from adit_plugins import registry
from adit_plugins.relax.results import (
    MP_RAW,
    RelaxResult,
    bare_structure,
    raised,
    right_handed,
    without_constraints,
)

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

    from adit_plugins.hull.table import Hull

GROUP = "adit.dft"
DIATOMIC = ("H", "N", "O", "F", "Cl", "Br", "I")  # their reference is the molecule in a box
BOX = 4.0  # angstrom of vacuum on each side of it
MAX_SECONDS = 24 * 3600.0
# Initial moments (Bohr magnetons) as the Materials Project sets them; others start without.
MOMENTS = {"Cr": 5.0, "Mn": 5.0, "Fe": 5.0, "Co": 5.0, "Ni": 5.0}


class DftError(RuntimeError):
    """A calculation cannot be set up; the message says what is missing."""


class DftEngine(Protocol):
    """What an engine offers.

    Attributes:
        name: with its version, recorded beside every number.
        settings: all that two energies must share to be compared.
    """

    @property
    def name(self) -> str:
        """See above."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """See above."""
        ...

    def calculator(self, atoms: Atoms) -> Any:
        """Return a fresh ASE calculator for a structure."""
        ...


@dataclass(frozen=True)
class DftVerdict:
    """What DFT says of a crystal.

    Attributes:
        engine: name with version.
        settings: of the engine.
        reason: `"converged"`, `"single point"`, `"step limit"`, or what went wrong.
        energy_per_atom: eV/atom; None where the calculation failed.
        formation_energy_per_atom: eV/atom, from elements computed with the same settings and
            without any correction; None where one of them is missing.
        energy_above_hull: eV/atom, an estimate: the formation energy with the Materials Project's
            2020 corrections, against its hull. Their settings are others.
        seconds: wall-clock time.
        problem: why a value is None, or what is not certain about the place on the hull.
    """

    engine: str
    settings: Mapping[str, Any]
    reason: str
    energy_per_atom: float | None = None
    formation_energy_per_atom: float | None = None
    energy_above_hull: float | None = None
    seconds: float = 0.0
    problem: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def find_engine(spec: str, options: Mapping[str, Any] | None = None) -> DftEngine:
    """Return the engine of a name.

    Args:
        spec: a name in `adit.dft` (`gpaw`); `ase:NAME` for a calculator of ASE with its defaults;
            or `module:function` of your own, which returns an ASE calculator for an Atoms.
        options: such as cutoff (eV) and kpoint_density; engines name those that they know.

    Raises:
        UnknownPluginError: there is none of that name.
        MissingExtraError: its package is not installed.
        ValueError: an option is not known or impossible.
    """
    known = {key: value for key, value in (options or {}).items() if value is not None}
    name, _, argument = spec.partition(":")
    if not argument:
        return cast(DftEngine, registry.load(GROUP, name)(known))
    if known:
        raise ValueError(f"'{spec}' takes no {', '.join(sorted(known))}; set them in its function.")
    if name == "ase":
        return _Calculator(spec, _ase_calculator(argument))
    try:
        return _Calculator(spec, getattr(import_module(name), argument))
    except (ModuleNotFoundError, AttributeError) as error:
        names = ", ".join(registry.names(GROUP))
        raise registry.UnknownPluginError(
            f"No DFT engine '{spec}': {error}. Known: {names}, ase:NAME, module:function."
        ) from error


@dataclass(frozen=True)
class _Calculator:
    """A function that makes calculators, as an engine."""

    name: str
    make: Callable[[Atoms], Calculator]

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"calculator": self.name}

    def calculator(self, atoms: Atoms) -> Calculator:
        return self.make(atoms)


def _ase_calculator(name: str) -> Callable[[Atoms], Calculator]:
    from ase.calculators.calculator import get_calculator_class

    try:
        made = get_calculator_class(name)
    except ImportError as error:
        raise registry.UnknownPluginError(f"ASE has no calculator '{name}': {error}.") from error
    return lambda atoms: made()


def compute(
    spec: str,
    options: Mapping[str, Any],
    max_steps: int,
    fmax: float,
    batch: Sequence[Atoms],
    keep_constraints: bool = False,
) -> list[RelaxResult]:
    """Compute energies by DFT, after a relaxation of at most `max_steps` (0: a single point).

    Constraints are dropped unless they are to be kept, as by `adit_plugins.relax.relax`. A
    left-handed cell comes back right-handed, of the same crystal: not every code takes the other.

    Raises:
        UnknownPluginError: see `find_engine`.
        MissingExtraError: its package is not installed.
    """
    from adit_plugins.relax.ase_relaxer import AseRelaxer

    engine = find_engine(spec, options)
    results = []
    for given in batch:
        atoms = right_handed(given if keep_constraints else without_constraints(given))
        try:
            calculator = engine.calculator(atoms)
        except Exception as error:  # noqa: BLE001 - codes fail in as many ways
            results.append(RelaxResult.failure(atoms.copy(), raised(error), engine.name))
            continue
        relaxer = AseRelaxer(engine.name, calculator, MAX_SECONDS, convention=MP_RAW)
        (result,) = relaxer.relax([atoms], fmax, max_steps)
        if given.constraints:
            result = replace(result, constraints="kept" if keep_constraints else "dropped")
        results.append(result)
    return results


def with_moments(atoms: Atoms) -> Atoms:
    """Return a copy with the initial magnetic moments of a calculation.

    Moments that are vectors are left behind: every calculation here is collinear.
    """
    copy = atoms.copy()
    if copy.has("initial_magmoms") and copy.get_initial_magnetic_moments().ndim > 1:
        copy.set_initial_magnetic_moments(None)
    moments = np.array([MOMENTS.get(symbol, 0.0) for symbol in copy.symbols])
    if moments.any():
        copy.set_initial_magnetic_moments(moments)
    return copy


def reference_structure(symbol: str) -> Atoms:
    """Return the structure of an element: ASE's ground-state crystal, or the molecule in a box.

    Raises:
        DftError: ASE knows no simple one (phosphorus, for one).
    """
    if symbol in DIATOMIC:
        atoms = molecule(f"{symbol}2")
        atoms.center(vacuum=BOX)
        atoms.pbc = True
        return atoms
    try:
        return with_moments(bulk(symbol))
    except (ValueError, RuntimeError, KeyError) as error:
        raise DftError(
            f"no reference structure for {symbol} ({error}); give one with --references FILE"
        ) from error


def verdict(
    result: RelaxResult,
    engine: DftEngine,
    references: Mapping[str, float],
    single_point: bool,
    hull: Hull | None = None,
) -> DftVerdict:
    """Return formation energy and estimated place on the hull of a computed crystal.

    Args:
        result: of `compute`.
        engine: that computed it.
        references: energy of each element with the same settings, eV/atom.
        single_point: nothing was relaxed.
        hull: None for the shipped one.
    """
    from adit_plugins.hull.energies import undecided_correction

    reason = "single point" if single_point and not result.failed else result.reason
    found = DftVerdict(engine.name, dict(engine.settings), reason, seconds=result.seconds)
    if result.energy_per_atom is None:
        return DftVerdict(**found.as_dict() | {"problem": result.reason})
    values: dict[str, Any] = {"energy_per_atom": result.energy_per_atom}
    symbols = list(result.atoms.symbols)
    missing = sorted(set(symbols) - set(references))
    if missing:
        values["problem"] = f"no reference energy of {', '.join(missing)}"
        return DftVerdict(**found.as_dict() | values)
    elements = sum(references[symbol] for symbol in symbols) / len(symbols)
    formation = result.energy_per_atom - elements
    values["formation_energy_per_atom"] = formation
    try:
        values["energy_above_hull"] = _above_hull(result.atoms, formation, hull or _shipped_hull())
        values["problem"] = undecided_correction(result.atoms.get_chemical_formula(empirical=True))
    except (ValueError, ArithmeticError) as error:
        values["problem"] = " ".join(str(error).split())
    return DftVerdict(**found.as_dict() | values)


def _above_hull(atoms: Atoms, formation: float, hull: Hull) -> float:
    from adit_plugins.hull.energies import mp2020_correction

    correction = mp2020_correction(bare_structure(atoms)) / len(atoms)
    formula = atoms.get_chemical_formula(empirical=True)
    return hull.energy_above_hull(formula, formation + correction).energy_above_hull


@lru_cache(maxsize=1)
def _shipped_hull() -> Hull:
    from adit_plugins.hull.table import Hull

    return Hull.load()
