"""Properties of molecules by DFT at the level of QM9: gap, dipole moment, polarizability.

    python benchmarks/qm9_level.py TASKS.jsonl --log COMPUTED.jsonl --processes 14

It needs numpy and PySCF (`pip install pyscf`) alone, so that it runs where this package is not.
conditions_molecules.py writes TASKS.jsonl and reads COMPUTED.jsonl. B3LYP/6-31G(2df,p) as QM9's own
values; density fitting and a coarse grid save most of the time. The polarizability takes three more
calculations a molecule, in a small field along each axis.

Each result is appended at once, a molecule that the calculation does not finish as null, and what
the log has is not computed again: a run that was cut off goes on where it was.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np

DEAREST = "polarizability"  # the others are read off a calculation that each needs
BASIS, FUNCTIONAL = "6-31g(2df,p)", "b3lyp"
GRID_LEVEL = 1
LEVEL = f"{FUNCTIONAL}/{BASIS}, density fitting, grid level {GRID_LEVEL}"
FIELD = 0.002  # atomic units
CONVERGED = 1e-6  # hartree; the gap has then settled to a thousandth of an eV
DECIMALS = 6  # of a position in angstrom: far below what a property notices

Found = dict[str, float] | None


def task(
    numbers: Sequence[int], positions: Sequence[Sequence[float]], wanted: str
) -> dict[str, Any]:
    """A line of TASKS.jsonl; equal geometries (angstrom) and wishes have equal ids."""
    content = {
        "numbers": [int(number) for number in numbers],
        "positions": [[round(float(x), DECIMALS) for x in place] for place in positions],
        "wanted": wanted,
    }
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return {"id": digest[:16], **content}


def computed(numbers: Sequence[int], positions: Sequence[Sequence[float]], wanted: str) -> Found:
    """Gap (eV), dipole (D) and, where wanted, polarizability (bohr3); None if not converged.

    Args:
        numbers: atomic numbers.
        positions: angstrom.
        wanted: DEAREST, or anything else where that may be left out.

    Raises:
        RuntimeError, ValueError, LinAlgError: an odd number of electrons, atoms on one another, ...
    """
    from pyscf import dft, gto, lib
    from pyscf.data import nist

    lib.num_threads(1)
    atoms = list(zip(numbers, positions, strict=True))
    molecule = gto.M(atom=atoms, basis=BASIS, verbose=0)
    field_free = dft.RKS(molecule, xc=FUNCTIONAL).density_fit()
    field_free.grids.level, field_free.conv_tol = GRID_LEVEL, CONVERGED
    field_free.kernel()
    if not field_free.converged:
        return None
    filled = field_free.mo_occ > 0
    energies = field_free.mo_energy
    dipole = field_free.dip_moment(verbose=0)
    gap = float(energies[~filled].min() - energies[filled].max()) * nist.HARTREE2EV
    found = {"homo_lumo_gap": gap, "dipole_moment": float(np.linalg.norm(dipole))}
    if wanted == DEAREST:
        with molecule.with_common_orig((0.0, 0.0, 0.0)):
            operators = molecule.intor_symmetric("int1e_r", comp=3)
        core, density = field_free.get_hcore(), field_free.make_rdm1()
        diagonal = []
        for axis in range(3):
            shifted = core + FIELD * operators[axis]
            field_free.get_hcore = lambda *_, shifted=shifted: shifted
            field_free.kernel(dm0=density)
            if not field_free.converged:
                return None
            moved = field_free.dip_moment(verbose=0)[axis] - dipole[axis]
            diagonal.append(abs(float(moved)) / nist.AU2DEBYE / FIELD)
        found[DEAREST] = float(np.mean(diagonal))
    return found


def solved(line: dict[str, Any]) -> dict[str, Any]:
    """The log's line of a task, null where it fails, with the seconds that it took."""
    start = time.perf_counter()
    found = None
    with contextlib.suppress(RuntimeError, ValueError, np.linalg.LinAlgError):
        found = computed(line["numbers"], line["positions"], line["wanted"])
    seconds = round(time.perf_counter() - start, 1)
    return {"id": line["id"], "found": found, "seconds": seconds}


def read_log(path: Path) -> dict[str, Found]:
    """What a log has by id; empty where there is none. A last line that was cut off is not had."""
    if not path.exists():
        return {}
    found: dict[str, Found] = {}
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:  # the process was ended as it wrote
            continue
        found[line["id"]] = line["found"]
    return found


def in_turns(groups: Iterable[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The first of each group, the second of each, ...: cut off anywhere, all have as many."""
    lists = [list(group) for group in groups]
    longest = max(map(len, lists), default=0)
    return [group[place] for place in range(longest) for group in lists if place < len(group)]


def compute_all(tasks: Sequence[dict[str, Any]], log: Path, processes: int) -> None:
    """Append the result of each task that the log lacks, in the order in which they end."""
    had = read_log(log)
    missing = {line["id"]: line for line in tasks if line["id"] not in had}
    print(f"{len(missing)} of {len(tasks)} molecules are to be computed", flush=True)
    os.environ["OMP_NUM_THREADS"] = "1"  # read as the processes start: they share the cores
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(processes, mp_context=context) as pool,
        log.open("a", encoding="utf-8") as file,
    ):
        if log.stat().st_size and not log.read_bytes().endswith(b"\n"):
            file.write("\n")  # after a line that was cut off
        for done in as_completed([pool.submit(solved, line) for line in missing.values()]):
            file.write(json.dumps(done.result()) + "\n")
            file.flush()


def main() -> int:
    """Compute what the log lacks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", type=Path, help="JSON lines with id, numbers, positions, wanted")
    parser.add_argument("--log", type=Path, required=True, help="JSON lines with id and found")
    parser.add_argument("--processes", type=int, default=1, help="of one thread each")
    args = parser.parse_args()
    lines = args.tasks.read_text(encoding="utf-8").splitlines()
    compute_all([json.loads(line) for line in lines], args.log, args.processes)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
