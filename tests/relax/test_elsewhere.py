"""Potentials in another Python: the same numbers, and every fault in the result that it belongs to.

The other Python is this one, with ASE's calculators and some that die, hang or lack something.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import zipfile
from importlib import import_module
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from click.testing import CliRunner

from adit_plugins.cli import main
from adit_plugins.relax import environments
from adit_plugins.relax.ase_relaxer import AseRelaxer
from adit_plugins.relax.elsewhere import RemoteCalculator
from adit_plugins.relax.run import RelaxerError, find_relaxer, load_relaxer, relax

doctor = import_module("adit_plugins.cli.doctor")  # the name in the package is the command
EMT_SPEC = f"env:{sys.executable}:ase.calculators.emt:EMT"
FAULTY = '''
import os, time
from pathlib import Path
from ase.calculators.emt import EMT
from ase.calculators.calculator import Calculator

class NoStress(EMT):
    implemented_properties = ["energy", "forces"]

class Dying(EMT):
    """Ends its process at silver, each time; at gold, the first two times."""
    def calculate(self, atoms=None, *args, **kwargs):
        count = Path(os.environ["FAULTY_COUNT"])
        if 47 in atoms.numbers:
            print("out of memory", file=__import__("sys").stderr, flush=True)
            os._exit(9)
        if 79 in atoms.numbers and len(count.read_text()) < 2:
            count.write_text(count.read_text() + "x")
            os.kill(os.getpid(), 11)
        print("a line that is none of the answers")
        super().calculate(atoms, *args, **kwargs)

class Hanging(EMT):
    """Hangs at silver in compiled code that lets no other thread of Python run."""
    def calculate(self, atoms=None, *args, **kwargs):
        if 47 in atoms.numbers:
            Path(os.environ["FAULTY_COUNT"]).write_text(str(os.getpid()))
            sum(range(10**15))
        super().calculate(atoms, *args, **kwargs)

def nothing():
    return 3
'''


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of calculators on the path of the other Python; the file where they count."""
    (tmp_path / "faulty_calculators.py").write_text(FAULTY)
    (tmp_path / "count").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("FAULTY_COUNT", str(tmp_path / "count"))
    return tmp_path / "count"


def spec(name: str) -> str:
    return f"env:{sys.executable}:faulty_calculators:{name}"


def metals(*symbols: str) -> list[Atoms]:
    made = []
    for symbol in symbols:
        atoms = bulk(symbol, a=4.0) * (2, 1, 1)
        atoms.rattle(0.1, seed=0)
        atoms.info["adit"] = {"id": f"metal/{symbol}"}
        made.append(atoms)
    return made


def test_another_python_relaxes_to_the_same_digits() -> None:
    structures = [*metals("Cu", "Ni", "Au"), molecule("CO")]
    here = relax(structures, lambda: AseRelaxer("emt", EMT(), convention=""), 0.01, 60, workers=0)
    there = relax(structures, EMT_SPEC, 0.01, 60, workers=0)
    for one, other in zip(here, there, strict=True):
        assert (one.reason, one.num_steps) == (other.reason, other.num_steps)
        assert one.energy == other.energy
        assert np.array_equal(one.atoms.positions, other.atoms.positions)
        assert np.array_equal(one.atoms.cell.array, other.atoms.cell.array)
        assert other.atoms.info == one.atoms.info
    assert there[0].converged and there[0].convention == ""
    assert there[0].max_stress == here[0].max_stress and there[3].max_stress is None


def test_charges_and_magnetic_moments_travel() -> None:
    remote = RemoteCalculator(sys.executable, "ase.calculators.emt:EMT")
    atoms = bulk("Cu")
    atoms.set_initial_magnetic_moments([1.5])
    atoms.calc = remote
    assert atoms.get_potential_energy() == pytest.approx(EMT().get_potential_energy(bulk("Cu")))
    assert remote._geometry(atoms)["initial_magmoms"] == [1.5]
    assert "initial_charges" not in remote._geometry(atoms)


def test_a_process_that_dies_is_started_again_and_costs_one_structure(faulty: Path) -> None:
    copper, silver, gold = relax(metals("Cu", "Ag", "Au"), spec("Dying"), 0.05, 50, workers=0)
    assert copper.converged and gold.converged  # gold at its third try
    assert faulty.read_text() == "xx"
    assert silver.failed
    assert silver.reason == "worker process died: exit status 9; its last words: out of memory"
    assert silver.atoms.info["adit"]["id"] == "metal/Ag"


def gone(pid: int, seconds: float = 5.0) -> bool:
    """Whether a process is gone, or a zombie that nobody has waited for, within some seconds."""
    end = time.monotonic() + seconds
    while True:
        state = Path(f"/proc/{pid}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        if time.monotonic() > end:
            return False
        time.sleep(0.05)


def test_one_that_hangs_is_ended_at_the_time_limit(faulty: Path) -> None:
    silver, copper = relax(metals("Ag", "Cu"), spec("Hanging"), workers=1, time_limit=4)
    assert silver.failed and silver.reason.startswith("time limit")
    assert copper.converged
    # Our worker was killed, which could tell nobody: the system has ended what it had started.
    assert gone(int(faulty.read_text()))


def test_without_workers_the_potential_has_its_own_limit(faulty: Path) -> None:
    slow = RemoteCalculator(sys.executable, "faulty_calculators:Hanging", seconds=1.0)
    silver, copper = AseRelaxer("slow", slow).relax(metals("Ag", "Cu"), 0.05, 50)
    assert silver.failed and silver.reason == "time limit: no answer in 1 s"
    assert copper.converged
    assert gone(int(faulty.read_text()))


def test_the_other_process_ends_with_this_one() -> None:
    script = (
        "import sys, time\n"
        "from adit_plugins.relax.elsewhere import RemoteCalculator\n"
        "made = RemoteCalculator(sys.executable, 'ase.calculators.emt:EMT')\n"
        "print(made._program.pid, flush=True)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert not gone(child, seconds=0)
        os.kill(parent.pid, signal.SIGKILL)
    assert gone(child)


def test_a_potential_without_stress_relaxes_no_crystal_but_a_molecule(faulty: Path) -> None:
    crystal, mol = relax([bulk("Cu"), molecule("CO")], spec("NoStress"), workers=0)
    assert crystal.failed and crystal.reason.startswith(f"no stress: {spec('NoStress')} gives none")
    assert mol.converged


def test_an_unknown_element_is_said_as_the_calculator_says_it() -> None:
    (iron,) = relax([bulk("Fe")], EMT_SPEC, workers=0)
    assert iron.reason == "NotImplementedError: No EMT-potential for Fe"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("env", "not of the form env:NAME_OR_PATH:module:function"),
        ("env:sevennet:module", "not of the form"),
        ("env:nowhere:a:b", "environment 'nowhere' is not there .*adit env create nowhere PACK"),
        ("env:/nowhere/python:a:b", "'/nowhere/python' is no Python"),
        ("sevennet", "environment 'sevennet' is not there .*adit env create sevennet"),
        ("sevennet:l9", "sevennet knows no 'l9'. Known: 0, l3i5"),
        ("tblite:pm6", "tblite knows no 'pm6'. Known: gfn2, gfn1"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    text: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADIT_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=problem):
        find_relaxer(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("env:/bin/cat:a:b", "/bin/cat does not answer as a Python does"),
        ("env:/bin/false:a:b", "worker process died: exit status 1"),
        (spec("Missing"), "AttributeError: module 'faulty_calculators' has no attribute 'Missing'"),
        (spec("nothing"), "TypeError: it gives no ASE calculator but a int"),
        (f"env:{sys.executable}:no_module:f", "ModuleNotFoundError: No module named 'no_module'"),
    ],
)
@pytest.mark.usefixtures("faulty")
def test_what_cannot_be_loaded_is_one_line(text: str, problem: str) -> None:
    with pytest.raises(RelaxerError, match=problem) as caught:
        load_relaxer(text)
    assert "\n" not in str(caught.value)


def test_a_python_without_ase_says_so(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    with pytest.raises(RelaxerError, match="RuntimeError: it has no ASE; pip install ase there"):
        load_relaxer(f"env:{bare}:ase.calculators.emt:EMT")


def test_environments_are_listed_found_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A venv that sees this Python's packages, in the place of a download."""
    monkeypatch.setenv("ADIT_HOME", str(tmp_path))
    folder = tmp_path / "environments" / "toy"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/*/site-packages")
    (site / "ours.pth").write_text(str(Path(ase.__file__).parents[1]))
    run = CliRunner().invoke
    assert "never finished" in run(main, ["env", "list"]).output
    with pytest.raises(environments.NoEnvironmentError, match="'toy' is not finished"):
        find_relaxer("env:toy:a:b")
    environments._describe(folder, ["ase==3"])
    listed = run(main, ["env", "list"]).output
    assert f"toy         ase {ase.__version__}, Python" in listed
    assert "adit env create sevennet" in listed
    assert (True, "toy") in [finding[:2] for finding in doctor._environments()]
    (copper,) = relax([bulk("Cu", a=3.7)], "env:toy:ase.calculators.emt:EMT", workers=0)
    assert copper.converged
    with pytest.raises(environments.NoEnvironmentError, match=r"'toy' is there .*adit env remove"):
        environments.create("toy", ["x==1"])
    assert run(main, ["env", "remove", "toy"]).exit_code == 0
    assert not folder.exists()
    with pytest.raises(environments.NoEnvironmentError, match=r"no environment 'toy'. There: none"):
        environments.remove("toy")


def test_an_environment_that_cannot_be_made_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADIT_HOME", str(tmp_path))
    for python in ("/bin/false", "/nowhere/python"):
        with pytest.raises(environments.NoEnvironmentError, match="'toy' cannot be made: "):
            environments.create("toy", ["x==1"], python=python)
    assert not environments.environments()


def empty_wheel(folder: Path, name: str, version: str) -> None:
    """Write a package that holds nothing."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
        wheel.writestr(f"{info}/RECORD", "".join(f"{path},,\n" for path in files))


@pytest.mark.slow
def test_pip_makes_an_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network: from a folder of wheels."""
    monkeypatch.setenv("ADIT_HOME", str(tmp_path / "home"))
    for variable, value in {"NO_INDEX": "1", "FIND_LINKS": str(tmp_path)}.items():
        monkeypatch.setenv(f"PIP_{variable}", value)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    empty_wheel(tmp_path, "ase", "3.99")
    empty_wheel(tmp_path, "toypot", "1.5")
    with pytest.raises(environments.NoEnvironmentError, match="No matching distribution"):
        environments.create("toy", ["toypot==2.0"])
    told: list[str] = []
    made = environments.create("toy", ["toypot==1.5"], told=told.append)
    assert made.finished and made.versions == "toypot 1.5, ase 3.99"
    assert any("Successfully installed" in line for line in told)


@pytest.mark.parametrize(
    ("name", "requirements", "problem"),
    [
        ("unheard", [], "No recipe for 'unheard'. Known: sevennet .*, tblite"),
        ("../up", ["a==1"], "'../up' is no name"),
        ("toy", ["--pre"], "'--pre' is an option"),
    ],
)
def test_bad_names_of_environments(
    name: str,
    requirements: list[str],
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ADIT_HOME", str(tmp_path))
    with pytest.raises(environments.NoEnvironmentError, match=problem):
        environments.create(name, requirements)
    assert not list(tmp_path.iterdir())


def test_many_geometries_are_asked_about_at_once(tmp_path: Path) -> None:
    """One by one where the calculator knows no batches; what fails does not stop the others."""
    metals = [bulk("Cu"), bulk("Po"), bulk("Au")]
    remote = RemoteCalculator(sys.executable, "ase.calculators.emt:EMT")
    found = remote.evaluate_many(metals)
    assert "error" in found[1]
    for atoms, answer in zip(metals[::2], found[::2], strict=True):
        atoms.calc = EMT()
        assert answer["energy"] == pytest.approx(atoms.get_potential_energy())
        np.testing.assert_allclose(answer["stress"], atoms.get_stress(), atol=1e-9)
    batches = tmp_path / "batches.py"
    batches.write_text(
        "from ase.calculators.emt import EMT\n"
        "class Batches(EMT):\n"
        "    def evaluate_many(self, structures):\n"
        "        return [{'energy': float(len(structures))} for _ in structures]\n"
    )
    remote = RemoteCalculator(sys.executable, f"{batches}:Batches")
    assert remote.evaluate_many(metals) == [{"energy": 3.0}] * 3
