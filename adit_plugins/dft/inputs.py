"""Input folders for those who run VASP or Quantum ESPRESSO themselves."""

from __future__ import annotations

import csv
import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.io.espresso import SSSP_VALENCE

from adit_plugins.dft.engines import with_moments
from adit_plugins.structures.selection import INDEX

K_SPACING = 0.2  # 1/angstrom, between neighbouring points with the factor 2 pi, as VASP's KSPACING


def write_vasp(atoms: Atoms, folder: Path) -> None:
    """Write INCAR, KPOINTS, POSCAR and POTCAR.spec of the Materials Project's relaxation.

    POTCAR.spec names the pseudopotentials, which nobody may pass on. Initial moments are the
    Materials Project's; constraints become selective dynamics.
    """
    from pymatgen.io.ase import AseAtomsAdaptor
    from pymatgen.io.vasp.sets import MPRelaxSet

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about POTCARs that are not installed
        plain = atoms.copy()
        plain.set_initial_magnetic_moments(None)
        structure = AseAtomsAdaptor.get_structure(plain).get_sorted_structure()
        MPRelaxSet(structure).write_input(str(folder), potcar_spec=True)


def write_espresso(atoms: Atoms, folder: Path) -> None:
    """Write `espresso.pwi` of a PBE relaxation with the cell.

    Pseudopotentials are called `SYMBOL.UPF`, in the folder of `ESPRESSO_PSEUDO`; the cutoffs
    (60 and 480 Ry) are those of the SSSP efficiency set's harder elements. Points of the
    Brillouin zone are `K_SPACING` apart at most. Initial moments are written as pw.x has them, as
    a share of the valence electrons, between -1 and 1.
    """
    folder.mkdir(parents=True, exist_ok=True)
    magnetic = _with_fractions(with_moments(atoms))
    spin = {"nspin": 2} if magnetic.has("initial_magmoms") else {}
    settings = {
        "control": {"calculation": "vc-relax", "tprnfor": True, "tstress": True},
        "system": {
            "ecutwfc": 60, "ecutrho": 480, "occupations": "smearing", "smearing": "mv",
            "degauss": 0.01, **spin,
        },
    }  # fmt: skip
    ase.io.write(
        folder / "espresso.pwi",
        magnetic,
        format="espresso-in",
        input_data=settings,
        pseudopotentials={symbol: f"{symbol}.UPF" for symbol in set(atoms.symbols)},
        kspacing=K_SPACING / (2 * math.pi),  # ASE leaves out the factor
    )


def _with_fractions(atoms: Atoms) -> Atoms:
    """Turn moments in Bohr magnetons into what pw.x starts from; ASE passes them on as they are."""
    if atoms.has("initial_magmoms"):
        valence = np.array([SSSP_VALENCE[z] if z < len(SSSP_VALENCE) else z for z in atoms.numbers])
        fractions = np.clip(atoms.get_initial_magnetic_moments() / valence, -1.0, 1.0)
        atoms.set_initial_magnetic_moments(fractions)
    return atoms


def write_index(names: Mapping[str, tuple[str, str]], out: Path) -> None:
    """Write which structure is in which folder: a POSCAR or pw.x input has no place for its id.

    Args:
        names: of a folder, (id, formula).
        out: where the folders are.
    """
    with (out / INDEX).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("folder", "id", "formula"))
        writer.writerows((folder, *named) for folder, named in names.items())


WRITERS: Mapping[str, Callable[[Atoms, Path], None]] = {
    "vasp": write_vasp,
    "espresso": write_espresso,
}
