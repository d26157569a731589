"""Files of crystals and molecules, and ways to damage them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from monty.json import MontyEncoder
from numpy.random import Generator
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.io.cif import CifParser, CifWriter

CRYSTALS = (
    bulk("NaCl", "rocksalt", 5.64), bulk("MgO", "rocksalt", 4.21, cubic=True),
    bulk("CsCl", "cesiumchloride", 4.12), bulk("GaAs", "zincblende", 5.65),
    bulk("ZnO", "wurtzite", 3.25, c=5.2), bulk("Cu", "fcc", 3.6), bulk("Fe", "bcc", 2.87),
    bulk("Mg", "hcp", 3.21, c=5.21), bulk("Si", "diamond", 5.43, cubic=True),
    bulk("CaF2", "fluorite", 5.46), bulk("Ti", "hcp", 2.95, c=4.68), bulk("Al", "fcc", 4.05),
    bulk("LiF", "rocksalt", 4.03), bulk("KBr", "rocksalt", 6.6),
)  # fmt: skip
MOLECULES = (
    "H2O", "CH4", "NH3", "CH3CH2OH", "C6H6", "CO2", "HCN", "CH3NO2", "C2H4", "CH3COOH", "H2CO",
    "CH3CN", "C4H4O", "N2", "CH3SH",
)  # fmt: skip
WORDS = (
    "nan",
    "inf",
    "-inf",
    "1e300",
    "-1",
    "0",
    "999999999",
    "Xx",
    "?",
    "",
    "\x00",
    "é",
    "1.0.0",
    "H+",
)


def write_files(folder: Path) -> dict[Path, list[Atoms]]:
    """Write 100 different files in six formats, and return what they hold.

    Each crystal as CIF of ASE and of pymatgen (with symmetry operators), as extxyz, POSCAR and
    JSON, each molecule as xyz and SDF; all but POSCARs with a second structure.
    """
    warnings.filterwarnings("ignore", module="pymatgen")
    tungsten, files = bulk("W", "bcc", 3.16), {}
    for i, atoms in enumerate(CRYSTALS):
        both = [atoms, tungsten]
        names = [f"crystal_{i}.{suffix}" for suffix in ("cif", "extxyz", "sym.cif", "json")]
        structures = [AseAtomsAdaptor.get_structure(each) for each in both]
        ase.io.write(folder / names[0], both)
        ase.io.write(folder / names[1], both)
        symmetric = [CifWriter(each, symprec=0.01) for each in structures]
        (folder / names[2]).write_text("\n".join(map(str, symmetric)))
        text = json.dumps([each.as_dict() for each in structures], indent=1, cls=MontyEncoder)
        (folder / names[3]).write_text(text)
        conventional = [AseAtomsAdaptor.get_atoms(
            CifParser.from_str(str(each)).parse_structures(primitive=False)[0]
        ) for each in symmetric]  # fmt: skip
        files |= {folder / name: both for name in names}
        files[folder / names[2]] = conventional
        ase.io.write(folder / f"crystal_{i}.vasp", atoms, sort=True)
        files[folder / f"crystal_{i}.vasp"] = [atoms]
    for i, name in enumerate(MOLECULES):
        both = [molecule(name), molecule("O2")]
        ase.io.write(folder / f"molecule_{i}.xyz", both)
        write_sdf(folder / f"molecule_{i}.sdf", both)
        files |= {folder / f"molecule_{i}.{suffix}": both for suffix in ("xyz", "sdf")}
    return files


def write_sdf(path: Path, molecules: list[Atoms]) -> None:
    """Write records without bonds, as many programs do."""
    records = []
    for atoms in molecules:
        lines = [f"{x:10.4f}{y:10.4f}{z:10.4f} {symbol:<3} 0  0" for symbol, (x, y, z) in
                 zip(atoms.symbols, atoms.positions, strict=True)]  # fmt: skip
        head = ["mol", "  test    3D", "", f"{len(atoms):3d}  0  0  0  0  0            999 V2000"]
        records.append("\n".join([*head, *lines, "M  END", "$$$$", ""]))
    path.write_text("".join(records))


def mutate(content: str, rng: Generator) -> str:
    """Damage a text in one to three places."""
    for _ in range(rng.integers(1, 4)):
        lines = content.split("\n")
        place = int(rng.integers(len(lines)))
        match rng.integers(8):
            case 0:
                del lines[place]
            case 1:
                lines.insert(place, lines[int(rng.integers(len(lines)))])
            case 2 | 3:
                tokens = lines[place].split()
                if tokens:
                    tokens[int(rng.integers(len(tokens)))] = str(rng.choice(WORDS))
                lines[place] = " ".join(tokens)
            case 4:
                lines = lines[:place]
            case 5:
                start = int(rng.integers(len(content) + 1))
                content = content[:start] + content[start + int(rng.integers(1, 40)) :]
                continue
            case 6:
                start = int(rng.integers(len(content) + 1))
                noise = "".join(chr(int(c)) for c in rng.integers(0, 256, 6))
                content = content[:start] + noise + content[start:]
                continue
            case _:
                other = int(rng.integers(len(lines)))
                lines[place], lines[other] = lines[other], lines[place]
        content = "\n".join(lines)
    return content


def without_a_line(content: str, rng: Generator) -> str:
    """Lose or repeat a line, or lose all after it: what breaks in copying, not in meaning."""
    lines = content.splitlines(keepends=True)
    place = int(rng.integers(len(lines)))
    match rng.integers(3):
        case 0:
            del lines[place]
        case 1:
            lines.insert(place, lines[place])
        case _:
            lines = lines[:place]
    return "".join(lines)


def same_structure(first: Atoms, second: Atoms) -> bool:
    """Whether elements, cell and all distances agree."""
    if sorted(first.numbers) != sorted(second.numbers) or (first.pbc != second.pbc).any():
        return False
    periodic = bool(first.pbc.all())
    if periodic and abs(first.get_volume() / second.get_volume() - 1) > 1e-3:
        return False
    distances = [np.sort(each.get_all_distances(mic=periodic).ravel()) for each in (first, second)]
    return bool(np.allclose(*distances, atol=0.01))


def damaged(atoms: Atoms, scale: float, seed: int = 0) -> Atoms:
    """A copy whose atoms are moved by about `scale` angstrom."""
    copy = atoms.copy()
    copy.positions += np.random.default_rng(seed).normal(size=copy.positions.shape) * scale
    assert isinstance(copy, Atoms)
    return copy
