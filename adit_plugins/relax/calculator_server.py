"""Serve an ASE calculator to another process, in lines of JSON. Run as a file, by any Python.

It needs ASE and whatever the calculator needs: nothing else of adit-plugins, and no torch. The
first line names what to load, each further line is a geometry; every line is answered by one:

    {"module": "ase.calculators.emt", "function": "EMT", "arguments": {}}
    -> {"properties": ["energy", "forces", "stress", ...], "python": "3.11.7"}
    {"numbers": [...], "positions": [[...]], "cell": [[...]], "pbc": [...], "wanted": ["energy"]}
    -> {"energy": -1.2}

In the place of an answer stands {"error": "ValueError: what went wrong"}. Lengths are in angstrom,
energies in eV, stress in eV/cubic angstrom (Voigt order). It ends with its input.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys
import warnings
from contextlib import suppress
from typing import Any, Dict, Optional  # noqa: UP035 - a Python of another may be old

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
    found = importlib.import_module(order["module"])
    for name in order["function"].split("."):
        found = getattr(found, name)
    calculator: Any = found(**order.get("arguments", {}))  # type: ignore[operator]
    if not hasattr(calculator, "get_potential_energy"):
        raise TypeError(f"it gives no ASE calculator but a {type(calculator).__name__}")
    return calculator


def evaluate(calculator: Any, order: Dict[str, Any]) -> Dict[str, Any]:  # noqa: UP006
    """Return the wanted properties of a geometry."""
    from ase import Atoms

    atoms = Atoms(order["numbers"], order["positions"], cell=order["cell"], pbc=order["pbc"])
    for name, setter in ARRAYS.items():
        if name in order:
            getattr(atoms, setter)(order[name])
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
            else:
                answer = evaluate(calculator, order)
            text = json.dumps(answer)
        except Exception as error:  # noqa: BLE001 - a stranger's code may raise anything
            said = " ".join(str(error).split())
            text = json.dumps({"error": f"{type(error).__name__}: {said}"})
        answers.write(text + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
