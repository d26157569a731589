"""The command line as a person uses it: results, one-line errors, nothing half-written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ase.build import bulk
from click.testing import CliRunner, Result

from adit_plugins.cli import main
from adit_plugins.generation import Selection
from adit_plugins.structures.reading import read_structures
from adit_plugins.structures.samples import Sample
from adit_plugins.validity.molecules import examine

FAST = ["--num-steps", "2", "--device", "cpu"]


def adit(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def assert_error(result: Result, *parts: str) -> None:
    """Exit status 2 and one line on stderr that holds the parts."""
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if not line[0].islower()]  # no progress
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("Error: ")
    for part in parts:
        assert part in lines[0]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom adit_plugins.cli import main\n"
        "print(CliRunner().invoke(main, ['--help']).output)\n"
        "print('LOADED', {'torch', 'ase', 'pymatgen', 'rdkit', 'numpy', 'rich'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for command in ("generate", "discover", "data", "train", "doctor"):
        assert f"\n  {command} " in done.stdout
    assert "LOADED set()" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--kind", "protein"], ["protein", "'crystal', 'molecule'"]),
        (["--num", "0"], ["0", "x>=1", "adit generate --help"]),
        (["--num", "-3"], ["-3", "x>=1"]),
        (["--num-steps", "0"], ["0", "x>=1"]),
        (["--num-atoms", "99"], ["99", "1..7"]),
        (["--num", "many"], ["many"]),
        (["--sampler", "magic"], ["magic", "euler"]),
        (["--guidance-scale", "1e9"], ["guidance_scale is 1000000000.0", "from 0 to 100"]),
        (["--device", "meta"], ["meta", "cpu"]),
        (["--out", "."], ["name a new folder"]),
        (["--device", "abacus"], ["abacus", "cpu"]),
        (["--guidance-scale", "-1"], ["-1"]),
        (["--checkpoint", "mp21"], ["mp21"]),
        (["--ids", "tiny/0"], ["tiny/0", "checkpoint/seed/index"]),
        (["--ids", "other/0/1"], ["other", "tiny"]),
        (["--ids", "tiny/0/1", "--num", "3"], ["--ids", "--num"]),
        (["--out", "x.pdf"], ["x.pdf", ".pdf", ".extxyz"]),
        (["--out", "nowhere/x.extxyz"], ["nowhere", "mkdir"]),
        (["--out", "x.sdf"], ["SDF", ".extxyz"]),
        (["--out", "x.cif", "--kind", "molecule"], ["CIF", ".sdf"]),
    ],
)
def test_generate_refuses_bad_input(
    place: Path, tiny_checkpoint: str, arguments: list[str], parts: list[str]
) -> None:
    base = ["generate", "--checkpoint", tiny_checkpoint, "--out", "x.extxyz", *FAST]
    assert_error(adit(*base, *arguments), *parts)
    assert list(place.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_found_first(place: Path, tiny_checkpoint: str) -> None:
    (place / "locked").mkdir(mode=0o500)
    result = adit("generate", "--checkpoint", tiny_checkpoint, "--out", "locked/x.extxyz")
    assert_error(result, "locked")


def test_a_file_where_a_folder_should_be(place: Path, tiny_checkpoint: str) -> None:
    (place / "file").touch()
    assert_error(
        adit("generate", "--checkpoint", tiny_checkpoint, "--out", "file/x.extxyz"), "file"
    )


@pytest.mark.parametrize("damage", ["truncated", "changed", "missing", "config"])
def test_damaged_weights(place: Path, tiny_checkpoint: str, damage: str) -> None:
    shutil.copytree(tiny_checkpoint, place / "weights")
    shard = next((place / "weights").glob("*.safetensors"))
    content = shard.read_bytes()
    if damage == "truncated":
        shard.write_bytes(content[: len(content) // 2])
    elif damage == "changed":
        shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "missing":
        shard.unlink()
    else:
        (place / "weights" / "config.json").write_text("{")
    for command in (["generate", "--out", "x.extxyz"], ["discover", "--out", "results"]):
        assert_error(adit(*command, "--checkpoint", "weights"), "weights")
    assert [path.name for path in place.iterdir()] == ["weights"]


def test_ids_in_a_file_that_is_no_text(place: Path, tiny_checkpoint: str) -> None:
    (place / "ids").write_bytes(b"\xff\xfe\x00")
    arguments = ["--checkpoint", tiny_checkpoint, "--out", "x.extxyz", "--ids", "ids"]
    assert_error(adit("generate", *arguments), "ids", "no text file", "one id a line")


def test_generate_writes_reproducible_samples(place: Path, tiny_checkpoint: str) -> None:
    base = ["generate", "--checkpoint", tiny_checkpoint, "--seed", "3", *FAST]
    result = adit(*base, "--num", "5", "--batch-size", "2", "--out", "first.extxyz")
    assert result.exit_code == 0, result.output
    assert "5 samples in first.extxyz" in result.stdout
    first = read_structures("first.extxyz")
    assert [atoms.info["adit"]["id"] for atoms in first] == [f"tiny/3/{i}" for i in range(5)]

    (place / "wanted.txt").write_text("tiny/3/4\ntiny/3/1\n")
    again = [*base[:3], *FAST, "--ids", "wanted.txt", "--ids", "tiny/3/0", "--out", "again.json"]
    assert adit(*again).exit_code == 0
    for atoms, index in zip(read_structures("again.json"), (4, 1, 0), strict=True):
        assert atoms.info["adit"] == first[index].info["adit"]
        assert (atoms.numbers == first[index].numbers).all()
        assert abs(atoms.get_volume() - first[index].get_volume()) < 1e-2


def test_a_format_that_holds_none_of_the_samples(place: Path, tiny_checkpoint: str) -> None:
    result = adit(
        "generate", "--checkpoint", tiny_checkpoint, "--kind", "molecule", "--num", "2",
        "--num-atoms", "8", "--out", "x.sdf", *FAST,
    )  # fmt: skip
    assert_error(result, "none of the 2 samples", "x.sdf", "They are in x.extxyz")
    assert [path.name for path in place.iterdir()] == ["x.extxyz"]
    assert len(read_structures("x.extxyz")) == 2


def test_generate_goes_on_until_enough_are_kept(place: Path) -> None:
    base = ["generate", "--kind", "molecule", "--num-steps", "10", "--valid-only", "--unique"]
    result = adit(*base, "--until", "3", "--out", "m.sdf")
    assert result.exit_code == 0, result.output
    kept = read_structures("m.sdf")
    made = re.search(
        r"^3 samples in m.sdf of (\d+) made; thrown away: (.*)\.$", result.stdout, re.M
    )
    assert made is not None and len(kept) == 3
    thrown = sum(int(n) for n in re.findall(r"(\d+) (?:invalid|duplicates)", made[2]))
    assert thrown > 0 and int(made[1]) - thrown == 3  # the network at ten steps is not that good
    with_all = adit(*base[:5], "--num", made[1], "--out", "all.extxyz")
    assert with_all.exit_code == 0, with_all.output
    strict = [examine(atoms)[0].strict_valid for atoms in read_structures("all.extxyz")]
    assert sum(strict) >= 3
    short = adit(*base, "--until", "9", "--num", "2", "--out", "few.extxyz")
    assert short.exit_code in (0, 2) and (
        "budget of 2" in short.stderr or "none of" in short.stderr
    )


def test_elements_that_no_molecule_of_the_training_data_has(place: Path) -> None:
    result = adit("generate", "--kind", "molecule", "--elements", "Fe,C", "--out", "x.xyz")
    assert_error(result, "no molecule would hold Fe", "H, C, N, O, F", "ask for crystals")


def test_until_needs_something_to_count(place: Path) -> None:
    assert_error(adit("generate", "--until", "3", "--out", "x.cif"), "--until", "--valid-only")
    for wrong in (["--shard", "0/2"], ["--kind", "molecule"]):
        assert_error(adit("discover", "--until", "3", *wrong), "--until counts crystals")


def test_a_selection_keeps_the_first_of_equal_crystals() -> None:
    crystals = [bulk("Cu"), bulk("Cu", cubic=True), bulk("Ag"), bulk("Cu", a=0.3)]
    samples = [Sample.from_ase(atoms) for atoms in crystals]
    selection = Selection(valid_only=True, unique=True)
    assert [each.num_atoms for each in selection.of(samples)] == [1, 1]
    assert selection.describe() == {"made": 4, "kept": 2, "duplicates": 1, "invalid": 1}
    assert len(list(Selection(unique=True, num=1).of(samples))) == 1


def test_doctor_finds_and_checks_weights(
    tmp_path: Path, tiny_checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adit_model.checkpoints import folder as checkpoint

    monkeypatch.setattr(checkpoint, "WEIGHTS_FOLDER", tmp_path)
    result = adit("doctor")
    assert result.exit_code == 1
    assert "MISSING adit-joint" in result.stdout

    shutil.copytree(tiny_checkpoint, tmp_path / "adit-joint")
    result = adit("doctor")
    assert result.exit_code == 0, result.stdout
    assert "checksums match" in result.stdout
    assert "chgnet" in result.stdout

    shard = next((tmp_path / "adit-joint").glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1])
    result = adit("doctor")
    assert result.exit_code == 1
    assert "damaged" in result.stdout


def test_train_passes_everything_on(capfd: pytest.CaptureFixture[str]) -> None:
    usage = adit("train", "--help")
    assert usage.exit_code == 0
    assert "autoencoder|denoiser|prior|labels|prefilter" in usage.stdout
    result = adit("train", "decorator", "--data", "x", "--out", "y")
    assert result.exit_code == 2
    assert "decorator" in result.stderr
    assert "autoencoder" in result.stderr
    assert_error(
        adit("train", "autoencoder", "--data", "none.safetensors", "--steps", "1", "--out", "y"),
        "none.safetensors",
    )


def test_data_prepare_and_its_errors(place: Path, tiny_checkpoint: str) -> None:
    assert_error(adit("data", "prepare", "mp21"), "mp21", "mp20", "qm9")
    assert_error(adit("data", "prepare", "crystals", "--source", "none.csv"), "none.csv")
    assert_error(adit("data", "prepare", "crystals"), "--source")
    (place / "broken.parquet").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert_error(adit("data", "prepare", "crystals", "--source", "broken.parquet"), "broken")
    assert not list(place.glob("data/*"))

    generated = ["generate", "--checkpoint", tiny_checkpoint, "--num", "21", "--out", "cifs", *FAST]
    assert adit(*generated).exit_code == 0
    result = adit("data", "prepare", "crystals", "--source", "cifs", "--out", "data")
    assert result.exit_code == 0, result.output
    assert "data/crystals.safetensors" in result.stdout


def test_discover_refuses_bad_input(place: Path, tiny_checkpoint: str) -> None:
    base = ["discover", "--checkpoint", tiny_checkpoint, *FAST]
    (place / "thesis").mkdir()
    (place / "thesis" / "chapter1.tex").touch()
    (place / "text.xyz").write_text("not a structure")
    before = sorted(place.rglob("*"))
    assert_error(adit(*base, "--out", "thesis"), "thesis", "--out")
    assert_error(adit(*base, "--out", "thesis", "--overwrite"), "thesis", "--out")
    assert_error(adit(*base, "--out", "text.xyz"), "text.xyz", "is a file")
    assert_error(adit(*base, "--out", "a/b"), "mkdir")
    assert_error(adit(*base, "--relaxer", "oracle"), "oracle", "chgnet")
    assert_error(adit(*base, "--fmax", "0"), "x>0")
    assert_error(adit(*base, "none.cif"), "none.cif")
    assert_error(adit(*base, "text.xyz"), "text.xyz")
    assert_error(adit(*base, "--formula", "Li20O"), "no crystal fits", "multiple of 21 atoms")
    assert_error(
        adit(*base, "--prefilter", "chgnet", "--prefilter-limit", "inf"), "prefilter_limit=inf"
    )
    assert_error(adit(*base, "--no-relax", "--relaxer", "chgnet"), "--relaxer", "--no-relax")
    assert_error(adit(*base, "--workers", "0", "--time-limit", "9"), "--time-limit")
    assert_error(adit("discover", "text.xyz", "--formula", "NaCl"), "--formula", "no effect")
    assert sorted(place.rglob("*")) == before


def test_discover_replaces_nothing_before_it_can_begin(place: Path, tiny_checkpoint: str) -> None:
    base = ["discover", "--num", "2", "--overwrite", "--out", "out"]
    new = ["--checkpoint", tiny_checkpoint, *FAST]
    assert adit(*base, *new, "--no-relax").exit_code == 0
    before = {path: path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()}
    assert_error(adit(*base, "out/crystals.extxyz", "--no-relax"), "where results go")
    assert_error(adit(*base, *new, "--no-relax", "--formula", "Li20O"), "no crystal fits")
    assert_error(adit(*base, *new, "--relaxer", "os:getcwd"), "os")
    assert before == {path: path.read_bytes() for path in before}
    assert sorted(before) == [path for path in sorted(place.rglob("*")) if path.is_file()]


@pytest.mark.parametrize(("given", "expected"), [(None, "2000"), ("7", "7")])
def test_threads_that_wait_leave_the_cores_to_others(
    given: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    if given is not None:
        monkeypatch.setenv("GOMP_SPINCOUNT", given)
    else:
        monkeypatch.setattr(os, "environ", os.environ.copy())  # what the command sets goes with it
    with pytest.raises(SystemExit):
        main(["--version"])
    assert os.environ["GOMP_SPINCOUNT"] == expected
