"""Build the wheel and install it as a user would, beside the running environment's packages."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = ("adit_model", "adit_plugins", "integrations")
FILES = ("pyproject.toml", "README.md", "LICENSE", "THIRD_PARTY_NOTICES.md")
PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input")


def run(*command: str | Path, cwd: Path, ok: bool = True, both: bool = False) -> str:
    """Run a command that knows nothing of the checkout and return what it printed.

    Args:
        command: program and arguments.
        cwd: where.
        ok: whether it has to succeed, or to fail.
        both: stderr as well.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL"))}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert (done.returncode == 0) is ok, done.stdout + done.stderr
    return done.stdout + done.stderr if both else done.stdout


def build_wheel(source: Path, out: Path) -> Path:
    """Build from a copy in `source`, because a build writes into its folder."""
    for name in SOURCES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, source / name)
    run(sys.executable, *PIP, "wheel", source, "--no-deps", "--no-build-isolation", "--no-index",
        "-w", out, cwd=out)  # fmt: skip
    return next(out.glob("adit_plugins-*.whl"))


def make_environment(folder: Path, wheel: Path) -> Path:
    """Return the `bin` of an environment with the wheel; other packages are the running one's."""
    venv.create(folder, with_pip=False, symlinks=True)
    install(folder / "bin", wheel)
    python = folder / "bin" / "python"
    packages = Path(
        run(python, "-c", "import site; print(site.getsitepackages()[0])", cwd=folder).strip()
    )
    # A path in a .pth file comes after the environment's own packages, and the .pth files in it
    # are not read: the editable install of the checkout stays invisible.
    (packages / "others.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return folder / "bin"


def install(bin_folder: Path, package: Path) -> None:
    """Install a wheel or a source folder, from the disk alone."""
    run(sys.executable, *PIP, "--python", bin_folder / "python", "install", "--no-deps",
        "--no-build-isolation", "--no-index", package, cwd=bin_folder)  # fmt: skip
