"""The `tblite` relaxers: GFN2-xTB (Bannwarth et al. 2019, doi 10.1021/acs.jctc.8b01176), GFN1-xTB.

For molecules of nearly any element, where the potentials of crystals have nothing to say; its
parameters are in its wheel. It runs in an environment of its own: `adit env create tblite`.
"""

from __future__ import annotations

from adit_plugins.relax.ase_relaxer import AseRelaxer
from adit_plugins.relax.elsewhere import RemoteCalculator
from adit_plugins.relax.environments import check_of

ENVIRONMENT = "tblite"
METHODS = {"gfn2": "GFN2-xTB", "gfn1": "GFN1-xTB"}
ELEMENTS = frozenset(range(1, 87))  # hydrogen to radon
check = check_of(ENVIRONMENT, METHODS)


def make_relaxer(method: str = "gfn2", max_seconds: float = 60.0) -> AseRelaxer:
    """Load tblite in its environment and return it as a relaxer.

    Args:
        method: `"gfn2"` or `"gfn1"`.
        max_seconds: wall-clock limit a structure.

    Raises:
        ValueError: there is no such method, no environment, or it cannot be loaded there.
    """
    check(method)
    arguments = {"method": METHODS[method], "verbosity": 0}
    calculator = RemoteCalculator(ENVIRONMENT, "tblite.ase:TBLite", arguments, max_seconds)
    return AseRelaxer(f"tblite-{method}", calculator, max_seconds, convention="", elements=ELEMENTS)


make_relaxer.check = check  # type: ignore[attr-defined]
