"""GPAW as the DFT engine: PBE, plane waves, PAW data from its wheel `gpaw-data`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gpaw  # the group adit.dft imports this module when somebody asks for it
from ase import Atoms

CUTOFF, KPOINT_DENSITY = 400.0, 3.5  # eV; points per 1/angstrom


@dataclass(frozen=True)
class GpawEngine:
    """Settings that all calculations share; see `adit_plugins.dft.DftEngine`.

    Attributes:
        cutoff: of the plane waves, eV.
        kpoint_density: k-points per 1/angstrom of the reciprocal cell, with the Gamma point.
        xc: functional; PBE, RPBE, revPBE and LDA need no libxc.
    """

    cutoff: float = CUTOFF
    kpoint_density: float = KPOINT_DENSITY
    xc: str = "PBE"

    @property
    def name(self) -> str:
        """With the version."""
        return f"gpaw-{gpaw.__version__}"

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `DftEngine`."""
        return {
            "xc": self.xc,
            "mode": "plane waves",
            "cutoff_eV": self.cutoff,
            "kpoint_density_per_inverse_angstrom": self.kpoint_density,
            "smearing": "Fermi-Dirac, 0.05 eV, extrapolated to 0",
        }

    def calculator(self, atoms: Atoms) -> Any:
        """Return GPAW; spin-polarised where the structure has initial moments."""
        return gpaw.GPAW(
            mode=gpaw.PW(self.cutoff),
            xc=self.xc,
            kpts={"density": self.kpoint_density, "gamma": True},
            occupations=gpaw.FermiDirac(0.05),
            # A relaxation changes the symmetry of the rounding errors, not of the crystal.
            symmetry={"tolerance": 1e-4},
            maxiter=200,
            txt=None,
        )


def make_engine(options: Mapping[str, Any]) -> GpawEngine:
    """Return the engine.

    Raises:
        ValueError: an option is unknown or impossible.
    """
    unknown = sorted(set(options) - {"cutoff", "kpoint_density", "xc"})
    if unknown:
        raise ValueError(f"gpaw knows no {', '.join(unknown)}; but cutoff, kpoint_density and xc.")
    engine = GpawEngine(**options)
    if not 100 <= engine.cutoff <= 2000 or not 0 < engine.kpoint_density <= 20:
        raise ValueError(
            f"cutoff={engine.cutoff:g} must be 100 to 2000 eV, "
            f"kpoint_density={engine.kpoint_density:g} above 0 and at most 20"
        )
    return engine
