"""The wheel holds everything, and works outside the checkout."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("adit_model", "adit_plugins", "integrations")
FILES = ("pyproject.toml", "README.md", "LICENSE", "THIRD_PARTY_NOTICES.md")


def run(*command: str | Path, cwd: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL"))}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy because a build writes into its source folder."""
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, source / name)
    out = tmp_path_factory.mktemp("dist")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input")
    run(*pip, "wheel", source, "--no-deps", "--no-build-isolation", "--no-index", "-w", out,
        cwd=out)  # fmt: skip
    return next(out.glob("adit_plugins-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel; the other packages are those of the running one."""
    folder = tmp_path_factory.mktemp("installed") / "env"
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python, "install",
        "--no-deps", "--no-index", wheel, cwd=folder)  # fmt: skip
    packages = Path(
        run(python, "-c", "import site; print(site.getsitepackages()[0])", cwd=folder).strip()
    )
    # A path in a .pth file comes after the environment's own packages, and the .pth files in it
    # are not read: the editable install of the checkout stays invisible.
    (packages / "others.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return folder / "bin"


def test_the_wheel_holds_code_tables_weights_and_notices(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    for package in SOURCES:
        root = ROOT / "integrations" if package == "integrations" else ROOT
        for path in (ROOT / package).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and ".egg-info" not in str(path):
                assert str(path.relative_to(root)) in inside
    assert not [name for name in inside if name.startswith(("tests", "benchmarks"))]
    for name in ("LICENSE", "THIRD_PARTY_NOTICES.md"):
        assert any(path.endswith(f"dist-info/licenses/{name}") for path in inside)


def test_the_command_starts_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    assert "discover" in run(installed / "adit", "--help", cwd=tmp_path)


def test_tables_and_entry_points_are_found(installed: Path, tmp_path: Path) -> None:
    code = (
        "import adit_plugins, adit_model, adit_integrations\n"
        "from adit_plugins import registry\n"
        "from adit_plugins.hull import Hull\n"
        "from adit_plugins.matching import Fingerprints\n"
        "print(adit_plugins.__file__, adit_model.__file__, adit_integrations.__file__)\n"
        "print(Hull.load().energy_above_hull('NaCl', -2.0).num_reference_phases)\n"
        "print(len(Fingerprints.load('crystal')), len(Fingerprints.load('molecule')))\n"
        "print(registry.load('adit.relaxers', 'chgnet').__module__)\n"
        "print(registry.names('adit.datasets'))\n"
    )
    paths, phases, sizes, relaxer, data = run(
        installed / "python", "-c", code, cwd=tmp_path
    ).splitlines()
    assert paths.count(str(installed.parent)) == 3
    assert int(phases) >= 1
    assert all(int(size) > 10_000 for size in sizes.split())
    assert relaxer == "adit_integrations.chgnet"
    assert "qm9" in data


def test_the_release_is_inside_and_generates(installed: Path, tmp_path: Path) -> None:
    report = run(installed / "adit", "doctor", cwd=tmp_path)
    assert "adit-joint" in report
    assert "checksums match" in report
    run(installed / "adit", "generate", "--num", "2", "--num-steps", "2", "--out", "two.extxyz",
        cwd=tmp_path)  # fmt: skip
    assert "adit-joint/0/1" in (tmp_path / "two.extxyz").read_text()


def test_ase_and_pymatgen_find_us_by_themselves(installed: Path, tmp_path: Path) -> None:
    run(installed / "python", "-c",
        "from adit_plugins import ADiTGenerator\n"
        "ADiTGenerator(num_steps=2, batch_size=2).save('joint.adit')", cwd=tmp_path)  # fmt: skip
    # Each of these knows nothing of us but the installed entry points.
    run(installed / "python", "-m", "ase", "convert", "-n", "0:2", "joint.adit", "two.extxyz",
        cwd=tmp_path)  # fmt: skip
    run(installed / "adit", "generate", "--num", "2", "--num-steps", "2", "--out", "two.aditjson",
        cwd=tmp_path)  # fmt: skip
    code = (
        "import ase.io\n"
        "from pymatgen.core import Structure\n"
        "frames = ase.io.read('two.extxyz', ':')\n"
        "structures = [Structure.from_file('two.aditjson', index=i) for i in range(2)]\n"
        "for atoms, structure in zip(frames, structures):\n"
        "    print(atoms.info['adit']['id'], structure.properties['adit']['id'],\n"
        "          sorted(atoms.numbers) == sorted(structure.atomic_numbers))\n"
    )
    assert run(installed / "python", "-c", code, cwd=tmp_path).splitlines() == [
        "adit-joint/0/0 adit-joint/0/0 True",
        "adit-joint/0/1 adit-joint/0/1 True",
    ]
