"""Worker processes: how many, how they start and end, and a map over them that loses nothing."""

from __future__ import annotations

import multiprocessing
import os
import signal
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def available_cores() -> int:
    """Return the number of cores this process may use (a container may own fewer than exist)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def map_in_processes(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    on_death: Callable[[Item], Result],
    workers: int | None = None,
    chunk_size: int = 50,
) -> Iterator[Result]:
    """Yield `function(item)` for each item, in order, with a bounded number of items at work.

    Args:
        function: importable by name, and never raising: it returns what went wrong.
        items: taken as they are needed, so a generator of any length stays a generator.
        on_death: the result of an item that kills its worker (say, by taking all memory).
        workers: processes; None for one a core, 0 or 1 for none (everything in this process).
        chunk_size: items sent at once; fewer than two chunks' worth are done in this process,
            which is quicker than starting one.
    """
    count = available_cores() if workers is None else workers
    iterator = iter(items)
    head = list(islice(iterator, 2 * chunk_size))
    if count < 2 or len(head) < 2 * chunk_size:
        yield from map(function, head)
        yield from map(function, iterator)
        return
    chunks = _chunks(head, iterator, chunk_size)
    unfinished: deque[list[Item]] = deque()
    while True:
        # After a death the pool is gone. The chunks that were out are done item by item, each in
        # a process of its own, which finds the one to blame.
        yield from _until_broken(function, chunks, unfinished, count)
        if not unfinished:
            return
        for chunk in unfinished:
            for item in chunk:
                yield _alone(function, item, on_death)
        unfinished.clear()


def _chunks(head: list[Item], rest: Iterator[Item], size: int) -> Iterator[list[Item]]:
    for start in range(0, len(head), size):
        yield head[start : start + size]
    while chunk := list(islice(rest, size)):
        yield chunk


def _until_broken(
    function: Callable[[Item], Result],
    chunks: Iterator[list[Item]],
    unfinished: deque[list[Item]],
    workers: int,
) -> Iterator[Result]:
    """Yield results until the items end or a worker dies; then `unfinished` holds what was out."""
    pool = _start(workers)
    futures: deque[Future[list[Result]]] = deque()
    try:
        with one_thread_a_child():
            while True:
                while len(futures) <= workers and (chunk := next(chunks, None)) is not None:
                    unfinished.append(chunk)
                    with interruption_delayed():
                        futures.append(pool.submit(_map, function, chunk))
                if not futures:
                    return
                results = futures[0].result()
                futures.popleft()
                unfinished.popleft()
                yield from results
    except BrokenProcessPool:
        return
    finally:
        stop(pool)


def _alone(
    function: Callable[[Item], Result], item: Item, on_death: Callable[[Item], Result]
) -> Result:
    pool = _start(1)
    try:
        with one_thread_a_child(), interruption_delayed():
            future = pool.submit(function, item)
        return future.result()
    except BrokenProcessPool:
        return on_death(item)
    finally:
        stop(pool)


def _map(function: Callable[[Item], Result], items: list[Item]) -> list[Result]:
    return [function(item) for item in items]


def _start(workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")  # fork breaks threaded torch
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_quiet_worker)


def _quiet_worker() -> None:
    warnings.simplefilter("ignore")  # what is wrong with a structure is in its result
    end_at_interruption()


def end_at_interruption() -> None:
    """In a worker: Ctrl-C ends it without a traceback."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


@contextmanager
def interruption_delayed() -> Iterator[None]:
    """Start a worker with Ctrl-C blocked.

    A worker inherits it: it imports for seconds and would print a traceback if it were interrupted
    there. In this process Ctrl-C arrives right after.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def stop(pool: ProcessPoolExecutor) -> None:
    """End the workers now: after Ctrl-C nobody wants to wait for running work."""
    # Public as `terminate_workers` only from Python 3.14 on.
    for process in list((pool._processes or {}).values()):
        process.terminate()
    pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def one_thread_a_child() -> Iterator[None]:
    """Processes started meanwhile use one core each.

    The variables must be there before a child loads numpy: tiny matrix functions are several times
    slower when two workers' BLAS threads wait for each other.
    """
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
