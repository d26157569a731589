"""Serve an ASE calculator to another process, in lines of JSON. Run as a file, by any Python.

It needs ASE and whatever the calculator needs: nothing else of adit-plugins, and no torch. The
first line names what to load, each further line is a geometry; every line is answered by one:

    {"module": "ase.calculators.emt", "function": "EMT", "arguments": {}}
    -> {"properties": ["energy", "forces", "stress", ...], "python": "3.11.7"}
    {"numbers": [...], "positions": [[...]], "cell": [[...]], "pbc": [...], "wanted": ["energy"]}
    -> {"energy": -1.2}
    {"many": [{"numbers": ..., ...}, ...]}
    -> {"answers": [{"energy": -1.2, ...}, {"error": "ValueError: ..."}, ...]}

A module may also be the path of a file. A calculator with a method `evaluate_many` answers for many
geometries at once, for others they are evaluated one by one. In the place of an answer stands
{"error": "ValueError: what went wrong"}. Lengths are in angstrom,
energies in eV, stress in eV/cubic angstrom (Voigt order). It ends with its input.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import platform
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, Dict, List, Optional  # noqa: UP035 - a Python of another may be old

LIFELINE = "ADIT_LIFELINE"
METHODS = {"energy": "get_potential_energy", "forces": "get_forces", "stress": "get_stress"}
ARRAYS = {
    "initial_magmoms": "set_initial_magnetic_moments",
    "initial_charges": "set_initial_charges",
}


def end_with_parent() -> None:
    """Let the system end this process, whatever it does, once the one that started it is gone."""
    number = os.environ.pop(LIFELINE, "")
    if not number:
        return
    with suppress(OSError, ImportError, AttributeError):  # else it ends at the end of its input
        import fcntl

        pipe = int(number)
        fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
        flags = fcntl.fcntl(pipe, fcntl.F_GETFL)
        fcntl.fcntl(pipe, fcntl.F_SETFL, flags | os.O_ASYNC)  # SIGIO, which ends a process


def load(order: Dict[str, Any]) -> Any:  # noqa: UP006
    """Return the calculator that a line names."""
    try:
        import ase.calculators.calculator  # noqa: F401
    except ImportError as error:
        raise RuntimeError("it has no ASE; pip install ase there") from error
    found = module_of(order["module"])
    for name in order["function"].split("."):
        found = getattr(found, name)
    calculator: Any = found(**order.get("arguments", {}))
    if not hasattr(calculator, "get_potential_energy"):
        raise TypeError(f"it gives no ASE calculator but a {type(calculator).__name__}")
    return calculator


def module_of(name: str) -> Any:
    """Import a module by its name, or run the file at a path as one."""
    if not name.endswith(".py"):
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(Path(name).stem, name)
    if spec is None or spec.loader is None:
        raise ImportError(f"{name} is no Python file")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def atoms_of(order: Dict[str, Any]) -> Any:  # noqa: UP006
    """Return the geometry of a line as ASE's."""
    from ase import Atoms

    atoms = Atoms(order["numbers"], order["positions"], cell=order["cell"], pbc=order["pbc"])
    for name, setter in ARRAYS.items():
        if name in order:
            getattr(atoms, setter)(order[name])
    return atoms


def evaluate_many(calculator: Any, orders: List[Dict[str, Any]]) -> List[Any]:  # noqa: UP006
    """Return the properties of many geometries, or what went wrong with each."""
    if hasattr(calculator, "evaluate_many"):
        found = list(calculator.evaluate_many([atoms_of(order) for order in orders]))
        if len(found) != len(orders):
            raise ValueError(
                f"evaluate_many gave {len(found)} answers for {len(orders)} geometries"
            )
        return [
            {
                name: value.tolist() if hasattr(value, "tolist") else value
                for name, value in each.items()
            }
            for each in found
        ]
    return [tried(calculator, order) for order in orders]


def tried(calculator: Any, order: Dict[str, Any]) -> Dict[str, Any]:  # noqa: UP006
    """Return the properties of a geometry, or the error."""
    try:
        return evaluate(calculator, order)
    except Exception as error:  # noqa: BLE001 - a stranger's code may raise anything
        return wrong(error)


def wrong(error: Exception) -> Dict[str, Any]:  # noqa: UP006
    """Return an answer that says what went wrong."""
    said = " ".join(str(error).split())
    return {"error": f"{type(error).__name__}: {said}"}


def evaluate(calculator: Any, order: Dict[str, Any]) -> Dict[str, Any]:  # noqa: UP006
    """Return the wanted properties of a geometry."""
    atoms = atoms_of(order)
    atoms.calc = calculator
    found = {}
    for name in order["wanted"]:
        value = getattr(atoms, METHODS[name])()
        found[name] = value.tolist() if hasattr(value, "tolist") else float(value)
    return found


def main() -> None:
    """Answer line by line."""
    end_with_parent()
    # Potentials print; what they say must not stand between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.path.pop(0)  # the folder of this file, whose names would hide those of others
    warnings.simplefilter("ignore")
    calculator: Optional[Any] = None  # noqa: UP045
    for line in sys.stdin:
        try:
            order = json.loads(line)
            if calculator is None:
                calculator = load(order)
                known = getattr(calculator, "implemented_properties", list(METHODS))
                answer = {"properties": list(known), "python": platform.python_version()}
            elif "many" in order:
                answer = {"answers": evaluate_many(calculator, order["many"])}
            else:
                answer = evaluate(calculator, order)
            text = json.dumps(answer)
        except Exception as error:  # noqa: BLE001 - a stranger's code may raise anything
            text = json.dumps(wrong(error))
        answers.write(text + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
