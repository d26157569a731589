"""Files are whole or not there, whatever happens while they are written."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import ase.io
import pytest
import torch
from ase.build import bulk
from click.testing import CliRunner
from kills import killed_at_each_step
from safetensors.torch import load_file

from adit_model import ADiTConfig
from adit_model.checkpoints import folder as checkpoint
from adit_model.config import AutoencoderConfig
from adit_model.outputs import beside, replacing
from adit_plugins import Sample, read_structures, write_samples
from adit_plugins.campaign.store import Store
from adit_plugins.cli import main

OLD, NEW = bulk("Cu"), bulk("NaCl", "rocksalt", a=5.64)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text)


def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path) -> None:
    seen = set()
    write(tmp_path / "file.txt", "old")
    for _ in killed_at_each_step(tmp_path, lambda: write(tmp_path / "file.txt", "new")):
        seen.add((tmp_path / "file.txt").read_text())
        write(tmp_path / "file.txt", "old")
        assert names(tmp_path) == ["file.txt"]  # what the kill left is gone
    assert seen == {"old", "new"}


def test_a_killed_writer_leaves_a_whole_folder(tmp_path: Path) -> None:
    """Between two steps a folder may be away; then the next writer finds the earlier one."""
    target, seen = tmp_path / "crystals", set()
    write_samples([Sample.from_ase(OLD)], target)
    for _ in killed_at_each_step(
        tmp_path, lambda: write_samples([Sample.from_ase(NEW)] * 2, target)
    ):
        write(tmp_path / "other", "")
        assert names(tmp_path) == ["crystals", "other"]
        seen.add(tuple(len(atoms) for atoms in read_structures(target)))
        write_samples([Sample.from_ase(OLD)], target)
    assert seen == {(1,), (2, 2)}


def test_a_killed_save_leaves_a_loadable_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where architecture and number of shards are others than before."""
    monkeypatch.setattr(checkpoint, "SHARD_BYTES", 100)
    older = ADiTConfig(name="older"), {"a": torch.zeros(20), "b": torch.zeros(20)}
    autoencoder = AutoencoderConfig(width=32, num_heads=2)
    newer = ADiTConfig(name="newer", autoencoder=autoencoder), {"c": torch.ones(20)}
    folder, seen = tmp_path / "model", set()
    checkpoint.save(folder, *older)
    (folder / "README.md").write_text("my notes")
    for _ in killed_at_each_step(tmp_path, lambda: checkpoint.save(folder, *newer)):
        config, tensors, _identity = checkpoint.load(folder)
        wanted = older if config.name == "older" else newer
        assert config == wanted[0]
        assert tensors.keys() == wanted[1].keys()
        assert all(torch.equal(tensors[name], wanted[1][name]) for name in tensors)
        seen.add(config.name)
        checkpoint.save(folder, *older)
        assert len(names(folder)) == 4  # notes, configuration, two shards
    assert seen == {"older", "newer"}
    assert (folder / "README.md").read_text() == "my notes"


def test_a_killed_save_leaves_no_half_of_a_new_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "model"
    for _ in killed_at_each_step(
        tmp_path, lambda: checkpoint.save(folder, ADiTConfig(name="any"), {"a": torch.ones(3)})
    ):
        if folder.exists():
            assert checkpoint.load(folder)[1]["a"].tolist() == [1, 1, 1]
            shutil.rmtree(folder)
    assert not checkpoint.is_checkpoint(folder)


def test_files_of_other_programs_stay_beside_a_checkpoint(tmp_path: Path) -> None:
    theirs = ["model-00001-of-00002.safetensors", "model.safetensors", "index.json", "model-a.txt"]
    for name in theirs:
        (tmp_path / name).write_text("[]")
    assert not checkpoint.is_checkpoint(tmp_path)
    for value in (0.0, 1.0):
        checkpoint.save(tmp_path, ADiTConfig(name="any"), {"a": torch.full((3,), value)})
    assert checkpoint.is_checkpoint(tmp_path)
    assert set(theirs) < set(names(tmp_path))
    assert len(names(tmp_path)) == len(theirs) + 2


def test_a_folder_of_the_older_layout_is_read_and_replaced(tmp_path: Path) -> None:
    config, tensors = ADiTConfig(name="any"), {"a": torch.ones(3)}
    checkpoint.save(tmp_path, config, tensors)
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps({"shards": content.pop("shards")}))
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert checkpoint.load(tmp_path)[0] == config
    checkpoint.save(tmp_path, config, {"a": torch.zeros(3)})
    assert checkpoint.load(tmp_path)[1]["a"].tolist() == [0, 0, 0]
    assert len(names(tmp_path)) == 2


def test_a_killed_save_leaves_a_loadable_small_mace(tmp_path: Path) -> None:
    from adit_integrations.mace_adit import network as mace_network

    networks = {
        channels: (
            mace_network.NetworkConfig(elements=(11, 17), channels=channels),
            {f"w{channels}": torch.full((channels,), 1.0)},  # any; nothing is built of them here
        )
        for channels in (4, 8)
    }
    mace_network.save(tmp_path, *networks[4])
    seen = set()
    for _ in killed_at_each_step(tmp_path, lambda: mace_network.save(tmp_path, *networks[8])):
        config, weights, checksum = mace_network.read_config(tmp_path)
        assert hashlib.sha256(weights.read_bytes()).hexdigest() == checksum
        assert load_file(weights).keys() == networks[config.channels][1].keys()
        seen.add(config.channels)
        mace_network.save(tmp_path, *networks[4])
        assert len(names(tmp_path)) == 2
    assert seen == {4, 8}


def test_a_killed_driver_leaves_a_whole_store_or_none(tmp_path: Path) -> None:
    metadata: dict[str, Any] = {"total": 0, "recipe": {}, "settings": {}, "shard": [0, 1]}
    for _ in killed_at_each_step(tmp_path, lambda: Store.create(tmp_path, metadata).close()):
        if (tmp_path / "results.db").exists():
            with Store(tmp_path) as store:
                assert store.total == 0
            (tmp_path / "results.db").unlink()
    assert not [name for name in names(tmp_path) if ".part." in name]


def test_what_cannot_be_finished_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.txt"
    write(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    def interrupted() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(FileNotFoundError), replacing(path):
        pass  # a writer that forgot to write
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(path, "new")
    assert (names(tmp_path), path.read_text()) == (["file.txt"], "old")


def test_content_is_on_the_disk_before_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synchronised(handle: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def renamed(source: Path, target: Path) -> None:
        steps.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synchronised)
    monkeypatch.setattr(os, "replace", renamed)
    write(tmp_path / "file.txt", "text")
    assert steps == ["file", "rename", "folder"]


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    with replacing(path) as first, replacing(path) as second:
        assert first != second
        second.write_text("second")
        first.write_text("first")
    assert path.read_text() == "first"  # the one that ended last


def test_only_what_the_dead_left_is_removed(tmp_path: Path) -> None:
    code = "from adit_model.outputs import beside; import pathlib, sys;"
    code += "beside(pathlib.Path(sys.argv[1])).write_text('half')"
    subprocess.run([sys.executable, "-c", code, tmp_path / "dead"], check=True)
    alive = beside(tmp_path / "alive")
    elsewhere = tmp_path / ".00000000-1-00000000.part.other-machine"
    host = alive.name[1:9]
    made_up = tmp_path / f".{host}-{'9' * 30}-00000000.part.no-process-has-such-a-number"
    for path in (alive, elsewhere, made_up, tmp_path / ".part.mine"):
        path.touch()
    assert len(names(tmp_path)) == 5
    write(tmp_path / "file.txt", "")
    assert names(tmp_path) == sorted(
        [alive.name, elsewhere.name, made_up.name, ".part.mine", "file.txt"]
    )


def test_files_have_the_permissions_of_any_other(tmp_path: Path) -> None:
    """Some libraries make files that nobody but their owner can read."""
    (tmp_path / "usual").touch()
    checkpoint.save(tmp_path / "model", ADiTConfig(name="any"), {"a": torch.ones(3)})
    with replacing(tmp_path / "private") as temporary:
        temporary.touch(0o600)
    modes = {path.stat().st_mode for path in tmp_path.rglob("*") if path.is_file()}
    assert modes == {(tmp_path / "usual").stat().st_mode}


def test_links_stay_links_and_devices_stay_devices(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link.txt").symlink_to(tmp_path / "there" / "file.txt")
    write(tmp_path / "link.txt", "text")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "there" / "file.txt").read_text() == "text"
    os.mkfifo(tmp_path / "pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()))
    reader.start()
    write(tmp_path / "pipe", "text")
    reader.join()
    assert read == ["text"]
    assert (tmp_path / "pipe").is_fifo()


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    ase.io.write("cu.extxyz", [bulk("Cu"), bulk("Ag")])
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", "cu.extxyz", "--json", "/sys/x.json"],
        ["evaluate", "cu.extxyz", "--markdown", "/sys/x.md"],
        ["report", "cu.extxyz", "--out", "/sys/x.html"],
        ["convert", "adit-joint", "/sys/x"],
        ["dft", "cu.extxyz", "--inputs", "vasp", "--out", "/sys/x"],
        ["submit", "lemat-genbench", "cu.extxyz", "--num", "2", "--out", "/sys/x"],
        ["data", "prepare", "crystals", "--source", "cu.extxyz", "--out", "/sys/x"],
        ["discover", "cu.extxyz", "--out", "/sys/x"],
    ],
)
def test_a_place_that_cannot_be_written_is_named_before_the_work(
    sources: Path, command: list[str]
) -> None:
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2
    assert re.fullmatch(r"Error: Cannot write (in )?/sys\S*: .+\n", result.stderr), result.output


@pytest.mark.parametrize(
    "command",
    [
        ["relax", "gone.extxyz"], ["dft", "gone"], ["evaluate", "gone.cif"], ["hull", "gone.cif"],
        ["discover", "gone.cif", "--relaxer", "nosuch"],
        ["submit", "lemat-genbench", "gone.cif", "--out", "x"],
    ],
)  # fmt: skip
def test_a_missing_input_is_what_is_said(sources: Path, command: list[str]) -> None:
    Path("relaxed.extxyz").touch()  # the output of relax is there, which matters less
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: Cannot read gone") and "no such file" in result.stderr


def test_an_unknown_executor_leaves_nothing(sources: Path) -> None:
    result = CliRunner().invoke(main, ["discover", "cu.extxyz", "--executor", "nosuch"])
    assert result.exit_code == 2 and "nosuch" in result.stderr
    assert [path.name for path in sources.iterdir()] == ["cu.extxyz"]


@pytest.mark.parametrize(
    ("out", "command"),
    [
        ("a.db", ["generate", "--num", "120", "--num-steps", "1", "--out", "a.db"]),
        ("d", ["discover", "cu.extxyz", "--no-relax", "--workers", "0", "--out", "d"]),
        ("pl", ["evaluate", "cu.extxyz", "--workers", "0", "--json", "x.json", "--plots", "pl"]),
    ],
)
def test_a_full_disk_is_one_line_and_leaves_nothing(
    sources: Path, out: str, command: list[str]
) -> None:
    """A limit on the size of files stands for it: the system refuses to write more."""
    words = [sys.executable, "-m", "adit_plugins.cli", *command]
    done = subprocess.run(
        ["/bin/sh", "-c", f"ulimit -f 40; exec {shlex.join(words)}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert out in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
    assert not (sources / out).exists()
    assert [path.name for path in sources.iterdir()] == ["cu.extxyz"]


def test_nothing_that_could_be_used_is_a_failure_for_scripts(sources: Path) -> None:
    """EMT knows neither; discover and relax end with 1, not 0."""
    ase.io.write("li.extxyz", [bulk("Li"), bulk("Na")])
    emt = ["--relaxer", "ase.calculators.emt:EMT", "--workers", "0"]
    assert CliRunner().invoke(main, ["relax", "li.extxyz", *emt]).exit_code == 1
    found = CliRunner().invoke(main, ["discover", "li.extxyz", *emt])
    assert found.exit_code == 1, found.output
    reason = found.stderr.splitlines()[-1]
    assert reason.startswith("No crystal could be relaxed") and "No EMT-potential" in reason
    again = CliRunner().invoke(main, ["discover", "--resume", "results"])
    assert "--relaxer ase.calculators.emt:EMT" in again.stderr  # code of one's own is named anew
    computed = CliRunner().invoke(main, ["dft", "li.extxyz", "--engine", "ase:emt"])
    assert computed.exit_code == 1 and "No EMT-potential" in computed.stdout
    for command in (["relax", "cu.extxyz"], ["discover", "cu.extxyz"]):
        fine = CliRunner().invoke(main, [*command, *emt, "--overwrite"])
        assert fine.exit_code == 0, fine.output
