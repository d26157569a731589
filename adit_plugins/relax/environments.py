"""Python environments for potentials that cannot live in ours: made, listed, found, removed.

Each is a venv in `~/.local/share/adit-plugins/environments` (or `$ADIT_HOME/environments`), with a
file that says what was asked for; without that file it was never finished.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adit_model.outputs import replacing
from adit_plugins import processes
from adit_plugins.outputs import own_folder

DESCRIPTION = "adit-environment.json"
PYTHON = Path("Scripts/python.exe") if os.name == "nt" else Path("bin/python")
ASE = "ase>=3.22"
PIP_INSTALL = ("-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off")


class NoEnvironmentError(ValueError):
    """An environment is missing, unfinished or cannot be made."""


@dataclass(frozen=True)
class Recipe:
    """What pip installs for a potential of ours.

    Attributes:
        requirements: pinned, as they were tested together.
        about: one line for people.
    """

    requirements: tuple[str, ...]
    about: str


RECIPES = {
    "sevennet": Recipe(
        (
            "sevenn==0.13.0", "torch==2.13.0", "e3nn==0.6.0", "torch-geometric==2.8.1",
            "ase==3.29.0", "numpy==2.4.6",
        ),
        "SevenNet-0 and l3i5 for crystals, 89 elements, weights in the wheel (MIT)",
    ),
    "tblite": Recipe(
        ("tblite==0.8.0", "ase==3.29.0", "numpy==2.4.6"),
        "GFN2-xTB and GFN1-xTB for molecules, hydrogen to radon (LGPL-3.0)",
    ),
}  # fmt: skip


def environments_folder() -> Path:
    """Where environments are.

    Raises:
        OSError: this user has no home folder.
    """
    return own_folder() / "environments"


def python_of(name: str) -> Path:
    """Return the Python of an environment, by its name here, its folder, or the Python itself.

    Raises:
        NoEnvironmentError: there is none, or it is unfinished.
    """
    if os.sep in name or name.startswith("~"):
        return _python_at(Path(name).expanduser())
    folder = environments_folder() / name
    if (folder / DESCRIPTION).is_file() and (folder / PYTHON).exists():
        return folder / PYTHON
    state = "is not finished" if folder.exists() else "is not there"
    known = ", ".join(each.name for each in environments()) or "none"
    how = name if name in RECIPES else f"{name} PACKAGE==VERSION"
    raise NoEnvironmentError(
        f"The environment '{name}' {state} (there: {known}). Make it: adit env create {how}. Or "
        "give the path of an environment or of its Python."
    )


def check_of(environment: str, known: Collection[str]) -> Callable[[str], None]:
    """Return the `check` of a relaxer that lives in an environment: of what stands after its name.

    The check raises ValueError where that is none of `known`, NoEnvironmentError where the
    environment has yet to be made. Without anything after the name the relaxer has a default.
    """

    def check(argument: str) -> None:
        if argument and argument not in known:
            raise ValueError(f"{environment} knows no '{argument}'. Known: {', '.join(known)}.")
        python_of(environment)

    return check


def _python_at(path: Path) -> Path:
    python = path / PYTHON if path.is_dir() else path
    if not (python.is_file() and os.access(python, os.X_OK)):
        raise NoEnvironmentError(
            f"'{path}' is no Python: neither an interpreter nor a folder with {PYTHON} in it."
        )
    return python.absolute()  # not resolved: a venv's is a link, and known by its place


@dataclass(frozen=True)
class Environment:
    """An environment that is there.

    Attributes:
        name: by which relaxers know it.
        folder: where it is.
        requirements: what was asked for; empty where it was never finished.
        versions: what is installed of that, by name.
        python: version.
    """

    name: str
    folder: Path
    requirements: tuple[str, ...] = ()
    versions: str = ""
    python: str = ""

    @property
    def finished(self) -> bool:
        """Whether it can be used."""
        return bool(self.requirements) and (self.folder / PYTHON).exists()


def environments() -> list[Environment]:
    """Return what is there, in the order of the names."""
    folder = environments_folder()
    folders = sorted(each for each in folder.iterdir() if each.is_dir()) if folder.is_dir() else []
    return [_described(each) for each in folders]


def _described(folder: Path) -> Environment:
    try:
        content: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        texts = (str(content.get(name, "")) for name in ("versions", "python"))
        return Environment(folder.name, folder, tuple(content["requirements"]), *texts)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Environment(folder.name, folder)


def create(
    name: str,
    requirements: Sequence[str] = (),
    python: str | None = None,
    torch_index: str | None = None,
    told: Callable[[str], Any] = lambda line: None,
) -> Environment:
    """Make an environment with pip; what was there of one that never was finished goes.

    Args:
        name: a potential of `RECIPES`, or any word beside requirements of your own.
        requirements: for pip, such as `"orb-models==0.7.0"`; ASE comes by itself.
        python: the interpreter that it is made with; None for this one.
        torch_index: URL of a package index that torch is taken from, such as that of CPU builds.
        told: called with each line that pip says.

    Raises:
        NoEnvironmentError: the name means nothing, it is there already, or pip fails.
    """
    wanted = _wanted(name, requirements)
    folder = environments_folder() / name
    if _described(folder).finished:
        raise NoEnvironmentError(
            f"The environment '{name}' is there ({folder}). Replace it: adit env remove {name}, "
            "then create it again."
        )
    _remove(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    interpreter = python or sys.executable
    pip = [str(folder / PYTHON), *PIP_INSTALL]
    try:
        processes.run_program([interpreter, "-m", "venv", str(folder)], told)
        torch = [each for each in wanted if re.match(r"torch\b(?!-)", each)]
        if torch_index and torch:
            processes.run_program([*pip, "--index-url", torch_index, *torch], told)
        processes.run_program([*pip, *wanted], told)
        _describe(folder, wanted)
    except (OSError, RuntimeError) as error:
        _remove(folder)
        raise NoEnvironmentError(f"The environment '{name}' cannot be made: {error}") from error
    except BaseException:  # Ctrl-C
        _remove(folder)
        raise
    return _described(folder)


def _wanted(name: str, requirements: Sequence[str]) -> tuple[str, ...]:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise NoEnvironmentError(f"'{name}' is no name: letters, digits, '.', '_' and '-'.")
    if bad := [each for each in requirements if each.startswith("-")]:
        raise NoEnvironmentError(
            f"{bad[0]!r} is an option, not a requirement such as sevenn==0.13.0."
        )
    if requirements:
        return (*requirements, *([] if any(r.startswith("ase") for r in requirements) else [ASE]))
    if name not in RECIPES:
        known = ", ".join(f"{each} ({RECIPES[each].about})" for each in RECIPES)
        raise NoEnvironmentError(
            f"No recipe for '{name}'. Known: {known}. Or say what to install: adit env create "
            f"{name} PACKAGE==VERSION ..."
        )
    return RECIPES[name].requirements


def _describe(folder: Path, wanted: Sequence[str]) -> None:
    """Ask the environment what it has, and write it down: from now on it is one."""
    names = [re.split(r"[^A-Za-z0-9._-]", each)[0] for each in wanted]
    script = (
        "import json, platform, sys\n"
        "from importlib.metadata import version\n"
        "found = ', '.join(f'{name} {version(name)}' for name in sys.argv[1:])\n"
        "print(json.dumps({'python': platform.python_version(), 'versions': found}))"
    )
    lines: list[str] = []
    processes.run_program([str(folder / PYTHON), "-c", script, *names], lines.append)
    content = json.loads(lines[-1]) | {"requirements": list(wanted)}
    with replacing(folder / DESCRIPTION) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")


def remove(name: str) -> Path:
    """Remove an environment, finished or not, and return where it was.

    Raises:
        NoEnvironmentError: there is none of that name.
    """
    if name not in [each.name for each in environments()]:
        known = ", ".join(each.name for each in environments()) or "none"
        raise NoEnvironmentError(f"There is no environment '{name}'. There: {known}.")
    folder = environments_folder() / name
    _remove(folder)
    return folder


def _remove(folder: Path) -> None:
    """Remove it so that a kill on the way leaves none that looks finished."""
    (folder / DESCRIPTION).unlink(missing_ok=True)
    if folder.exists():
        shutil.rmtree(folder)
