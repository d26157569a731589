"""The `chgnet` relaxer: CHGNet (Deng et al. 2023, doi 10.1038/s42256-023-00716-3).

Its wheel carries the weights, so nothing is downloaded; energies are on the scale of the
Materials Project (PBE with the 2020 corrections), which the shipped hull and references share.
"""

from __future__ import annotations

import contextlib
import io
import warnings

from adit_plugins.ase_relaxer import AseRelaxer

# eV/atom. The deepest solid of the Materials Project (tungsten) has -13; CHGNet was trained below
# +6. Outside lies extrapolation, such as atoms falling into each other.
ENERGY_BOUNDS = (-18.0, 10.0)


def make_relaxer(max_seconds: float = 60.0, device: str | None = None) -> AseRelaxer:
    """Load CHGNet and return it as a relaxer of crystals.

    Args:
        max_seconds: wall-clock limit a structure.
        device: `"cpu"`, `"cuda"`; None lets CHGNet choose.
    """
    # Loading announces the version and the device on stdout, and warns of pickles and graphs.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from chgnet.model.dynamics import CHGNetCalculator

        calculator = CHGNetCalculator(use_device=device, on_isolated_atoms="error")
    return AseRelaxer(
        name=f"chgnet-{calculator.version}",
        calculator=calculator,
        max_seconds=max_seconds,
        energy_bounds=ENERGY_BOUNDS,
        crystals_only=True,
    )
