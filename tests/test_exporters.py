"""Exporters of other packages behind `write_samples` and `adit generate`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from adit_plugins import ADiTGenerator, Sample, registry, write_samples
from adit_plugins.cli import main
from adit_plugins.structures.writers import OutputError, check_output

STRANGER = """
def formulas(samples, path):
    with path.open("w") as file:
        for sample in samples:
            file.write(sample.to_ase().get_chemical_formula() + "\\n")

def first(samples, path):
    path.write_text(next(samples).id + path.suffix)

def failing(samples, path):
    path.write_text("half a file")
    raise KeyError("lattice")

def silent(samples, path):
    list(samples)
"""


@pytest.fixture(autouse=True)
def stranger(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path_factory.mktemp("site")
    (site / "stranger_export.py").write_text(STRANGER)
    info = site / "stranger_export-1.0.dist-info"
    info.mkdir()
    names = ("formulas", "first", "failing", "silent")
    lines = [f"{name} = stranger_export:{name}" for name in names]
    lines.append("wrecked = stranger_export:nothing")
    (info / "entry_points.txt").write_text("\n".join(["[adit.exporters]", *lines]))
    monkeypatch.syspath_prepend(str(site))


@pytest.fixture(scope="module")
def samples(tiny_checkpoint: str) -> list[Sample]:
    return ADiTGenerator(checkpoint=tiny_checkpoint, num_steps=2).samples(3)


def test_by_suffix_and_by_name(samples: list[Sample], tmp_path: Path) -> None:
    by_suffix = write_samples(samples, tmp_path / "a.formulas")
    by_name = write_samples(samples, tmp_path / "b", format="formulas")
    assert by_suffix.written == by_name.written == 3
    assert by_suffix.path.read_text() == by_name.path.read_text()
    assert len(by_name.path.read_text().splitlines()) == 3
    write_samples(samples, tmp_path / "c.dat", format="extxyz")
    assert "Lattice=" in (tmp_path / "c.dat").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.formulas", "b", "c.dat"]


def test_from_the_command_line(tiny_checkpoint: str, tmp_path: Path) -> None:
    command = ["generate", "--checkpoint", tiny_checkpoint, "--num", "2", "--num-steps", "2"]
    out = tmp_path / "out.txt"
    result = CliRunner().invoke(main, [*command, "--out", str(out), "--format", "formulas"])
    assert result.exit_code == 0, result.output
    assert len(out.read_text().splitlines()) == 2
    result = CliRunner().invoke(main, [*command, "--out", str(out), "--format", "pdf"])
    assert result.exit_code == 2
    assert "no format 'pdf'. Known: extxyz," in result.stderr
    assert "formulas" in result.stderr


def test_what_was_finished_is_kept_when_the_stream_breaks_off(
    samples: list[Sample], tmp_path: Path
) -> None:
    def broken() -> Iterator[Sample]:
        yield from samples[:2]
        raise KeyboardInterrupt

    path = tmp_path / "kept.formulas"
    with pytest.raises(KeyboardInterrupt):
        write_samples(broken(), path)
    assert len(path.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("failing", OutputError, r"'failing' failed \(KeyError: 'lattice'\)"),
        ("silent", OutputError, "'silent' has written no file"),
        ("wrecked", registry.BrokenPluginError, "'wrecked' of adit.exporters, from stranger_exp"),
    ],
)
def test_a_faulty_exporter_is_named_and_leaves_the_old_file(
    name: str, error: type[Exception], message: str, samples: list[Sample], tmp_path: Path
) -> None:
    path = tmp_path / f"old.{name}"
    path.write_text("old")
    with pytest.raises(error, match=message):
        write_samples(samples, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_broken_exporter_is_found_out_before_anything_is_made(tmp_path: Path) -> None:
    assert check_output(tmp_path / "x.formulas") == tmp_path / "x.formulas"
    with pytest.raises(registry.BrokenPluginError):
        check_output(tmp_path / "x.wrecked")


def test_an_exporter_may_stop_early(samples: list[Sample], tmp_path: Path) -> None:
    report = write_samples(samples, tmp_path / "one.first")
    assert report.path.read_text() == samples[0].id + ".first"
