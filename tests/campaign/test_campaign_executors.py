"""Workers that die, hang or cannot start: what becomes of their structures."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cheap_potential
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from click.testing import CliRunner

from adit_plugins import ADiTGenerator
from adit_plugins.campaign import (
    Campaign,
    GeneratorSource,
    Resources,
    Settings,
    StructuresSource,
)
from adit_plugins.campaign.executors import SerialExecutor, make_executor
from adit_plugins.campaign.files import write_files
from adit_plugins.campaign.jobs import Job, Jobs, Killer
from adit_plugins.cli import main
from adit_plugins.processes import (
    At,
    Each,
    End,
    LostError,
    Part,
    ProcessesExecutor,
    collect,
    tell,
)
from adit_plugins.registry import UnknownPluginError
from adit_plugins.relax.results import RelaxResult
from adit_plugins.relax.run import RelaxerError

FAST = Settings(relaxer="cheap_potential:make", max_steps=3)


def campaign_in(
    folder: Path, structures: list[Atoms], settings: Settings = FAST, **means: object
) -> Campaign:
    source = StructuresSource(lambda start: structures[start:], len(structures))
    resources = Resources(**{"executor": "serial", "chunk_size": 3, **means})  # type: ignore[arg-type]
    return Campaign.create(folder, source, settings, resources)


def verdicts(campaign: Campaign) -> list[dict[str, object]]:
    """The table, but for the time that each relaxation took."""
    rows = list(campaign.store.verdicts())
    for row in rows:
        row.pop("relax_seconds", None)
    return rows


def odd(items: list[int]) -> list[int]:
    """Fails like a lost worker at number 5."""
    if 5 in items:
        raise OSError("lost")
    return [2 * item for item in items]


def drain(jobs: Jobs) -> dict[int, object]:
    found: dict[int, object] = {}
    while len(jobs):
        for job, results in jobs.finished():
            found |= dict(zip(job.keys, results, strict=True))
    return found


class Counting(SerialExecutor):
    """Remembers what it was given."""

    def __init__(self) -> None:
        self.seen: list[Sequence[int]] = []

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]
        self.seen.append(args[0])
        return super().submit(fn, *args, **kwargs)


def two_then_wait(signal_file: list[str]) -> list[int]:
    """Says that two of three items are finished, and waits for a file before the third."""
    for place in range(2):
        tell(At((place,)))
        tell(Part(place, End()))
    while not Path(signal_file[0]).exists():
        time.sleep(0.02)
    return [1, 2, 3]


def test_what_is_finished_inside_a_chunk_counts_at_once(tmp_path: Path) -> None:
    file = tmp_path / "go"
    with ProcessesExecutor(1, 60.0) as executor:
        jobs = Jobs(executor)
        jobs.submit(Job("relax", two_then_wait, [str(file)] * 3, [0, 1, 2]))
        while jobs.num_ended("relax") < 2:
            assert not list(jobs.finished())  # it comes back without anything
        assert (len(jobs), jobs.num_ended("other")) == (1, 0)
        file.touch()
        assert drain(jobs) == {0: 1, 1: 2, 2: 3}
        assert jobs.num_ended("relax") == 0


def test_a_killer_is_found_by_halves_and_everybody_else_gets_a_result() -> None:
    executor = Counting()
    jobs = Jobs(executor)
    for items in ([1, 2, 3], list(range(4, 12))):
        jobs.submit(Job("x", odd, items, items))
    found = drain(jobs)
    assert found.pop(5) == Killer("OSError: lost")
    assert found == {item: 2 * item for item in range(1, 12) if item != 5}
    assert [len(items) for items in executor.seen if 5 in items] == [8, 4, 2, 1]
    assert [5] in executor.seen


def test_a_structure_alone_has_three_chances() -> None:
    executor = Counting()
    jobs = Jobs(executor)
    jobs.submit(Job("x", odd, [1], [1]))
    jobs.submit(Job("x", odd, [5], [5]))
    assert isinstance(drain(jobs)[5], Killer)
    assert executor.seen.count([5]) == 3


def test_workers_that_always_die_end_the_campaign() -> None:
    jobs = Jobs(SerialExecutor())
    for start in range(0, 400, 4):
        jobs.submit(Job("x", int, [*range(start, start + 4)], [*range(start, start + 4)]))
    with pytest.raises(RelaxerError, match="whatever they get: TypeError"):
        drain(jobs)


def test_processes_survive_a_death_and_keep_exceptions_apart() -> None:
    with ProcessesExecutor(2, time_limit=60) as executor:
        first = executor.submit(os.getpid).result()
        assert first != os.getpid()
        dead = [executor.submit(os._exit, 3) for _ in range(2)]
        with pytest.raises(ValueError, match="invalid literal"):
            executor.submit(int, "x").result()
        for future in dead:
            with pytest.raises(LostError):
                future.result()
        assert executor.submit(sum, [1, 2]).result() == 3


def test_a_worker_killed_while_idle_is_replaced() -> None:
    with ProcessesExecutor(1, time_limit=60) as executor:
        pid = executor.submit(os.getpid).result()
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)
        assert executor.submit(os.getpid).result() != pid


def test_a_task_that_takes_too_long_loses_its_worker_only() -> None:
    with ProcessesExecutor(1, time_limit=0.5) as executor:
        slow = executor.submit(time.sleep, 1000)
        with pytest.raises(LostError, match=r"no answer in 0\.5 s"):
            slow.result()
        assert executor.submit(sum, [1]).result() == 1


@pytest.mark.parametrize("spec", ["threads", "serial:4", "processes:4"])
def test_an_unknown_executor_names_the_known_ones(spec: str) -> None:
    with pytest.raises((UnknownPluginError, ValueError), match=r"processes|takes no argument"):
        make_executor(spec, 1, 10.0)


@pytest.mark.slow
def test_structures_that_kill_or_hang_are_quarantined(tmp_path: Path) -> None:
    salts = cheap_potential.crystals(4)
    deadly = [bulk("HeO", "rocksalt", a=5.0), bulk("NeO", "rocksalt", a=5.0)]
    settings = Settings(relaxer="cheap_potential:make_deadly", max_steps=3)
    with campaign_in(
        tmp_path, [*salts[:2], *deadly, *salts[2:]], settings,
        executor="processes", workers=2, time_limit=1.0,
    ) as campaign:  # fmt: skip
        campaign.run()
        rows = verdicts(campaign)
        quarantined = [row["number"] for row in rows if row.get("quarantined")]
        assert quarantined == [2, 3]
        assert all(str(rows[i]["outcome"]) == "quarantined" for i in (2, 3))
        assert all(row["relaxed"] for row in rows if row["number"] not in (2, 3))
        assert {row["stage"] for row in rows} == {"done"}


def test_a_worker_that_dies_once_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    structures = cheap_potential.crystals(5)
    monkeypatch.setenv(cheap_potential.FLAG, str(tmp_path / "flag"))
    with campaign_in(
        tmp_path / "a", structures,
        Settings(relaxer="cheap_potential:make_deadly_once", max_steps=3),
        executor="processes", workers=1,
    ) as campaign:  # fmt: skip
        campaign.run()
        found = verdicts(campaign)
    assert (tmp_path / "flag").exists()
    with campaign_in(tmp_path / "b", structures) as campaign:
        campaign.run()
        assert verdicts(campaign) == found


def test_a_relaxer_that_cannot_be_made_is_said_once(tmp_path: Path) -> None:
    settings = Settings(relaxer="cheap_potential:make_broken")
    with campaign_in(
        tmp_path, cheap_potential.crystals(3), settings, executor="processes", workers=1
    ) as campaign:
        with pytest.raises(RelaxerError, match="no such weights"):
            campaign.run()
        assert len(campaign.store) == 3  # what was checked stays


def test_an_executor_of_the_standard_library_fits(tmp_path: Path) -> None:
    with ProcessPoolExecutor(1) as pool:
        jobs = Jobs(pool)
        jobs.submit(Job("x", odd, [1, 2], [1, 2]))
        assert drain(jobs) == {1: 2, 2: 4}


def test_what_is_tried_again_and_written_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    jobs = Jobs(SerialExecutor())
    jobs.submit(Job("x", odd, [4, 5], [4, 5]))
    with caplog.at_level("INFO", "adit_plugins"):
        drain(jobs)
        with campaign_in(tmp_path, cheap_potential.crystals(1)) as campaign:
            campaign.run()
            write_files(campaign.store)
    assert "2 items are tried again in halves: OSError: lost" in caplog.text
    assert "is given up after 3 tries: OSError: lost" in caplog.text
    assert f"written to {tmp_path}: crystals.extxyz" in caplog.text
    assert capfd.readouterr().err == ""  # silent, unless somebody listens


def test_the_command_line_logs_where_it_is_asked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bulk("NaCl", "rocksalt", a=5.69).write("salt.extxyz")
    command = ["discover", "salt.extxyz", "--no-relax", "--workers", "0", "--out"]
    quiet = CliRunner().invoke(main, [*command, "a"])
    loud = CliRunner().invoke(main, ["-v", *command, "b"])
    assert "adit_plugins.campaign.files: written to b: " in loud.stderr
    assert "adit_plugins.campaign" not in quiet.stderr


def test_no_worker_means_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr("adit_plugins.processes.worker.launch", refuse)
    with campaign_in(
        tmp_path, [molecule("CH4"), *cheap_potential.crystals(2)], executor="processes", workers=0
    ) as campaign:
        campaign.run()
        rows = verdicts(campaign)
    assert [row["stage"] for row in rows] == ["done"] * 3
    assert rows[0]["rdkit_valid"] and rows[1]["relaxed"]


def test_a_relaxer_that_takes_many_atoms_at_once_is_fed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    class Batched(cheap_potential.Cheap):
        def relax(self, batch: Sequence[Atoms], fmax: float, max_steps: int) -> list[RelaxResult]:
            sizes.append(sum(map(len, batch)))
            return super().relax(batch, fmax, max_steps)

    def make() -> Batched:
        plain = cheap_potential.make()
        return Batched(plain.name, plain.calculator)

    make.chunk_atoms = 60  # type: ignore[attr-defined]
    monkeypatch.setattr(cheap_potential, "make_batched", make, raising=False)
    structures = cheap_potential.crystals(30)
    settings = Settings("cheap_potential:make_batched", max_steps=1)
    with campaign_in(tmp_path, structures, settings, chunk_size=None, block_size=10) as campaign:
        monkeypatch.setattr("adit_plugins.relax.run._Custom.chunk_atoms", 60, raising=False)
        campaign.run()
        relaxed = sum(row.get("relaxed", False) for row in verdicts(campaign))
    assert relaxed > 10
    assert max(sizes) <= 60
    assert all(size > 40 for size in sizes[:-1])  # full, but for the rest


def test_a_cluster_generates_and_the_table_is_the_same(
    tmp_path: Path, tiny_checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    generators = [
        ADiTGenerator(
            kind="crystal", checkpoint=tiny_checkpoint, seed=seed, num_steps=2, device="cpu"
        )
        for seed in (0, 1)
    ]
    source = GeneratorSource(generators, 5)
    means = Resources(executor="serial", block_size=3)
    tables = []
    for name, remote in (("here", False), ("there", True)):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(SerialExecutor, "remote", remote, raising=False)
        if remote:
            monkeypatch.setattr(source, "entries", None)  # the driver does not make them
        with Campaign.create(tmp_path / name, source, Settings(None), means) as campaign:
            campaign.run()
            tables.append(verdicts(campaign))
        for row in tables[-1]:  # float32 knows which samples were made together
            row["min_distance"] = round(float(str(row["min_distance"])), 3)
    assert tables[0] == tables[1]
    assert len(tables[0]) == 10


def test_a_hanging_structure_costs_its_own_time_limit_once() -> None:
    """Its neighbours in the chunk keep their results, and the clock is that of one structure."""
    with ProcessesExecutor(1, 1.0, 120.0) as executor:
        jobs = Jobs(executor)
        jobs.submit(Job("x", hang_at_three, [1, 2, 3, 4], [1, 2, 3, 4]))
        found = drain(jobs)
        assert found == {1: 1, 2: 2, 3: Killer("LostError: no answer in 1 s"), 4: 4}
        assert executor.submit(len, [1]).result() == 1


def hang_at_three(items: list[int]) -> list[int]:
    return collect(Each(_hang_at_three), items)


def _hang_at_three(item: int) -> Iterator[int]:
    if item == 3:
        time.sleep(1000)
    yield item
