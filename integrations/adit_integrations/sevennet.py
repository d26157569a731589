"""The `sevennet` relaxers: SevenNet (Park et al. 2024, doi 10.1021/acs.jctc.4c00190).

Its wheel carries the weights of SevenNet-0 and of l3i5, the more accurate and slower one, but it
needs another e3nn than MACE and so an environment of its own: `adit env create sevennet`. Energies
are raw PBE(+U) with the Materials Project's settings (MPtrj).
"""

from __future__ import annotations

from adit_plugins.relax.ase_relaxer import AseRelaxer
from adit_plugins.relax.elsewhere import RemoteCalculator
from adit_plugins.relax.environments import check_of
from adit_plugins.relax.results import MP_RAW

ENVIRONMENT = "sevennet"
MODELS = {"0": "7net-0", "l3i5": "7net-l3i5"}
# eV/atom, raw: as for CHGNet, outside lies extrapolation.
ENERGY_BOUNDS = (-18.0, 10.0)
# Hydrogen to plutonium without polonium to radium, of which MPtrj has none.
ELEMENTS = frozenset(range(1, 95)) - frozenset(range(84, 89))
check = check_of(ENVIRONMENT, MODELS)


def make_relaxer(model: str = "0", max_seconds: float = 60.0) -> AseRelaxer:
    """Load SevenNet in its environment and return it as a relaxer of crystals and molecules.

    Args:
        model: `"0"` (SevenNet-0, 11 July 2024) or `"l3i5"`.
        max_seconds: wall-clock limit a structure.

    Raises:
        ValueError: there is no such model, no environment, or it cannot be loaded there.
    """
    check(model)
    calculator = RemoteCalculator(
        ENVIRONMENT,
        "sevenn.calculator:SevenNetCalculator",
        {"model": MODELS[model]},
        seconds=max_seconds,
    )
    return AseRelaxer(
        name=f"sevennet-{model}",
        calculator=calculator,
        max_seconds=max_seconds,
        energy_bounds=ENERGY_BOUNDS,
        convention=MP_RAW,
        elements=ELEMENTS,
    )


make_relaxer.check = check  # type: ignore[attr-defined]
