"""Work that stalls, dies or raises costs its own item and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from adit_plugins import processes
from adit_plugins.processes import (
    DIED,
    TIME_LIMIT,
    At,
    Attempt,
    Each,
    End,
    Part,
    ProcessesExecutor,
    after_loss,
    stream,
)


def work(item: str) -> Iterator[str]:
    """What the item says."""
    yield f"{item} begun"
    if item == "stall":
        time.sleep(60)
    if item == "die":
        os._exit(3)
    if item == "raise":
        raise ValueError("no good")
    yield f"{item} done"


def results(items: list[str], workers: int | None, time_limit: float = 1.0) -> list[list[object]]:
    collected: list[list[object]] = [[] for _ in items]
    for index, part in stream(Each(work), items, time_limit, workers):
        collected[index].append(part)
    return collected


def test_each_item_keeps_what_it_had_and_the_others_go_on() -> None:
    items = ["a", "stall", "b", "die", "c", "raise", "d"]
    start = time.monotonic()
    answers = results(items, workers=2)
    assert time.monotonic() - start < 30
    assert answers[1] == ["stall begun", End(TIME_LIMIT)]
    assert answers[3] == ["die begun"] * 3 + [End(DIED)]  # something else may have ended it
    assert answers[5] == ["raise begun", End("ValueError: no good")]
    for index in (0, 2, 4, 6):
        assert answers[index] == [f"{items[index]} begun", f"{items[index]} done", End()]


def test_without_processes_the_answers_are_the_same() -> None:
    assert results(["a", "raise"], workers=0) == [
        ["a begun", "a done", End()],
        ["raise begun", End("ValueError: no good")],
    ]


def test_nothing_to_do_starts_nothing() -> None:
    assert results([], workers=None) == []


@pytest.mark.parametrize(("time_limit", "workers"), [(0.0, 1), (-1.0, 1), (1.0, -1)])
def test_limits_that_mean_nothing_are_refused(time_limit: float, workers: int) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        results(["a"], workers, time_limit)


def double(item: str) -> str:
    """Twice the item, but for those that do harm."""
    if item == "die":
        os._exit(3)
    if item == "stall":
        time.sleep(60)
    return 2 * item


def test_map_keeps_the_order_and_what_else_was_in_the_chunk() -> None:
    items = ["a", "b", "die", "c", "stall", "d", "e"] + ["f"] * 20
    found = list(
        processes.map(
            double, iter(items), lambda item, problem: f"{item}: {problem}", 2, 1.0, chunk_size=4
        )
    )
    assert found == [
        {"die": f"die: {DIED}", "stall": f"stall: {TIME_LIMIT}"}.get(item, 2 * item)
        for item in items
    ]


def test_map_takes_no_more_than_it_needs() -> None:
    taken = 0

    def items() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield "a"

    found = processes.map(double, items(), lambda item, problem: "", 1, chunk_size=2)
    assert next(found) == "aa"
    assert taken < 40
    found.close()  # type: ignore[attr-defined]


def test_few_items_are_worth_no_process() -> None:
    assert list(processes.map(_pid, range(3), lambda item, problem: 0)) == [os.getpid()] * 3
    assert (
        list(processes.map(_pid, range(3), lambda item, problem: 0, workers=1)) != [os.getpid()] * 3
    )


def _pid(item: int) -> int:
    return os.getpid()


def together(items: Sequence[int]) -> Iterator[At | Part]:
    """All at once: nobody knows which of them it was."""
    yield At(tuple(range(len(items))))
    if 5 in items:
        os._exit(3)
    for place, item in enumerate(items):
        yield Part(place, item)
        yield Part(place, End())


def test_a_batch_is_cut_in_halves_down_to_the_one_to_blame() -> None:
    found: dict[int, list[object]] = {}
    for place, value in stream(together, list(range(8)), 60.0, 1, batches=[range(8)]):
        found.setdefault(place, []).append(value)
    assert found.pop(5) == [End(DIED)]
    assert found == {place: [place, End()] for place in (0, 1, 2, 3, 4, 6, 7)}


@pytest.mark.parametrize(
    ("attempt", "finished", "at_work", "problem", "again", "given_up"),
    [
        ((0, 1, 2, 3), {0}, (1,), DIED, [((2, 3), 0), ((1,), 1)], []),
        ((0, 1, 2, 3), {0}, (1,), TIME_LIMIT, [((2, 3), 0)], [1]),
        ((0, 1, 2, 3), set(), (), DIED, [((0, 1), 1), ((2, 3), 1)], []),
        ((0, 1, 2), {0}, (0, 1, 2), TIME_LIMIT, [((1,), 1), ((2,), 1)], []),
        ((7,), set(), (), "lost", [((7,), 1)], []),
    ],
)
def test_what_is_tried_again(
    attempt: tuple[int, ...],
    finished: set[int],
    at_work: tuple[int, ...],
    problem: str,
    again: list[tuple[tuple[int, ...], int]],
    given_up: list[int],
) -> None:
    found = after_loss(Attempt(attempt), finished, at_work, problem)
    assert found == ([Attempt(*each) for each in again], given_up)


def test_the_third_death_of_one_alone_is_its_end() -> None:
    assert after_loss(Attempt((4,), 1), (), (4,), DIED) == ([Attempt((4,), 2)], [])
    assert after_loss(Attempt((4,), 2), (), (4,), DIED) == ([], [4])


def device(_item: int) -> str:
    time.sleep(0.5)  # so that the others get their share
    return os.environ.get("CUDA_VISIBLE_DEVICES", "")


def test_each_worker_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a, 3")
    with ProcessesExecutor(3, 60.0) as executor:
        futures = [executor.submit(device, number) for number in range(9)]
        assert {future.result() for future in futures} == {"GPU-a", "3"}
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-a, 3"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    assert processes.visible_devices() == ["2"]


def test_only_one_package_starts_processes() -> None:
    root = Path(processes.__file__).parents[2]
    starters = ("multiprocessing.get_context", "ProcessPoolExecutor(", ".Process(", "os.fork(")
    found = {
        path.parent.name
        for folder in ("adit_model", "adit_plugins", "integrations")
        for path in (root / folder).rglob("*.py")
        if any(word in path.read_text(encoding="utf-8") for word in starters)
    }
    assert found == {"processes"}


def bar(_: int) -> int:
    from tqdm import tqdm

    return sum(1 for _ in tqdm([1, 2], disable=True))


def test_a_worker_that_is_ended_leaves_no_semaphore_of_a_progress_bar() -> None:
    """Python warns of it when the whole program ends, so a program of its own does the work."""
    code = (
        "import test_processes\n"
        "from adit_plugins.processes import ProcessesExecutor\n"
        "if __name__ == '__main__':\n"
        "    executor = ProcessesExecutor(1, 60.0)\n"
        "    print(executor.submit(test_processes.bar, 1).result())\n"
        "    executor.shutdown(cancel_futures=True)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert (done.stdout.strip(), done.stderr) == ("2", "")
