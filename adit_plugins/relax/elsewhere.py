"""A potential in a Python of its own: `env:NAME_OR_PATH:module:function` as a relaxer.

Only the calculator lives there (`calculator_server`, which needs nothing of ours); FIRE, the cell
filter, the limits and every check are `AseRelaxer`'s here, so that a potential is relaxed in the
same way wherever it runs. Numbers travel as JSON, which keeps each of their digits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from adit_plugins.processes import DEATHS, DIED, LostError, Program
from adit_plugins.relax.ase_relaxer import AseRelaxer
from adit_plugins.relax.calculator_server import ARRAYS
from adit_plugins.relax.environments import NoEnvironmentError, python_of
from adit_plugins.relax.results import SaidError

SERVER = Path(__file__).with_name("calculator_server.py")
FORM = "env:NAME_OR_PATH:module:function"
START_SECONDS = 120.0  # to import the potential and load its weights
WANTED = ("energy", "forces", "stress")


class ElsewhereError(ValueError):
    """A potential in another Python cannot be loaded."""


class RemoteCalculator(Calculator):
    """An ASE calculator whose work another Python does.

    A process that dies is started again, as often as any worker of ours; one that takes too long
    is ended, and the geometry has no result.
    """

    def __init__(
        self,
        environment: str,
        target: str,
        arguments: Mapping[str, Any] | None = None,
        seconds: float = 60.0,
    ) -> None:
        """Start the process and load the potential there.

        Args:
            environment: name or path, see `environments.python_of`.
            target: `module:function`, which returns an ASE calculator; a module may be the path
                of a file.
            arguments: of the function, by name; what JSON can hold.
            seconds: that an energy with its forces may take.

        Raises:
            NoEnvironmentError: there is no such Python.
            ElsewhereError: it is none, or module or function cannot be loaded.
        """
        super().__init__()
        self.environment, self.target, self.seconds = environment, target, seconds
        module, _, function = target.rpartition(":")
        order = {"module": module, "function": function, "arguments": dict(arguments or {})}
        self._order = json.dumps(order).encode()
        self._program = self._started()

    def _started(self) -> Program:
        python = python_of(self.environment)
        where = f"{self.target} in {self.environment} ({python})"
        try:
            program = Program([str(python), str(SERVER)])
            answer = json.loads(program.ask(self._order, START_SECONDS))
        except OSError as error:
            raise ElsewhereError(f"{python} is no Python that can be started: {error}") from error
        except LostError as error:
            raise ElsewhereError(f"{where} cannot be loaded: {error}") from error
        except ValueError as error:
            raise ElsewhereError(f"{python} does not answer as a Python does.") from error
        if not isinstance(answer, dict) or "properties" not in answer:
            problem = answer.get("error") if isinstance(answer, dict) else "no Python answers so"
            program.stop()
            raise ElsewhereError(f"{where} cannot be loaded: {problem}")
        self.implemented_properties = [each for each in WANTED if each in answer["properties"]]
        return program

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] | None = None,
    ) -> None:
        """Fill `results` with energy (eV), forces (eV/angstrom) and stress (eV/cubic angstrom).

        Raises:
            SaidError: the calculator has raised something.
            LostError: the process dies again and again, or has taken too long.
            ElsewhereError: it cannot be started again.
        """
        super().calculate(atoms, properties, system_changes or all_changes)
        answer = self._answer(self._geometry(self.atoms))
        self.results = {
            name: value if name == "energy" else np.array(value) for name, value in answer.items()
        }
        self.results["free_energy"] = self.results["energy"]

    def evaluate_many(self, structures: Sequence[Atoms]) -> list[dict[str, Any]]:
        """Ask about many geometries at once; a calculator that takes batches answers faster.

        `seconds` is for all of them.

        Returns:
            For each `energy` (eV), `forces` (eV/angstrom) and `stress` (eV/cubic angstrom, Voigt),
            as far as there are any, or `error`.

        Raises:
            SaidError, LostError, ElsewhereError: see `calculate`.
        """
        answer = self._answer({"many": [self._geometry(atoms) for atoms in structures]})
        found: list[dict[str, Any]] = answer["answers"]
        return found

    def _answer(self, order: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._asked(json.dumps(order).encode()))
        if "error" in answer:
            raise SaidError(answer["error"])
        return answer

    def _geometry(self, atoms: Atoms) -> dict[str, Any]:
        wanted = [
            each for each in self.implemented_properties if each != "stress" or atoms.pbc.all()
        ]
        parts = {
            "numbers": atoms.numbers,
            "positions": atoms.positions,
            "cell": atoms.cell.array,
            "pbc": atoms.pbc,
        } | {name: atoms.arrays[name] for name in ARRAYS if name in atoms.arrays}
        return {name: value.tolist() for name, value in parts.items()} | {"wanted": wanted}

    def _asked(self, order: bytes) -> bytes:
        for death in range(1, DEATHS + 1):
            try:
                return self._program.ask(order, self.seconds)
            except LostError as error:
                self._program = self._started()
                if error.problem != DIED or death == DEATHS:
                    raise
        raise AssertionError("the loop returns or raises")


def check(argument: str) -> None:
    """Find what is wrong with a spec before anything is started.

    Raises:
        NoEnvironmentError: there is no such Python.
        ElsewhereError: it is not of the form.
    """
    python_of(_split(argument)[0])


def _split(argument: str) -> tuple[str, str]:
    environment, _, target = argument.partition(":")
    module, _, function = target.partition(":")
    if not (environment and module and function):
        raise ElsewhereError(
            f"'env:{argument}' is not of the form {FORM}, such as "
            "env:sevennet:sevenn.calculator:SevenNetCalculator. A module may be "
            "the path of a file.py."
        )
    return environment, target


def make_relaxer(argument: str = "", max_seconds: float = 60.0) -> AseRelaxer:
    """Load a calculator in another Python and return it as a relaxer.

    Args:
        argument: `NAME_OR_PATH:module:function`.
        max_seconds: wall-clock limit a structure.

    Raises:
        NoEnvironmentError, ElsewhereError: see `RemoteCalculator`.
    """
    environment, target = _split(argument)
    calculator = RemoteCalculator(environment, target, seconds=max_seconds)
    # On what scale its energies are, only their maker can say.
    return AseRelaxer(f"env:{argument}", calculator, max_seconds, convention="")


make_relaxer.check = check  # type: ignore[attr-defined]

__all__ = ["ElsewhereError", "NoEnvironmentError", "RemoteCalculator", "check", "make_relaxer"]
