"""What a new process finds: cores, devices, threads, and how it takes Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

# They must be there before a child loads numpy: tiny matrix functions are several times slower when
# two workers' BLAS threads wait for each other.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
DEVICES = "CUDA_VISIBLE_DEVICES"
_DRIVER = Path("/proc/driver/nvidia/gpus")  # a folder a GPU; asking CUDA would occupy each of them


def available_cores() -> int:
    """Return the number of cores this process may use (a container may own fewer than exist)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def visible_devices() -> list[str]:
    """Return the GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them."""
    given = os.environ.get(DEVICES)
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip()]
    return (
        [str(number) for number in range(len(list(_DRIVER.iterdir())))] if _DRIVER.is_dir() else []
    )


def of_worker(number: int) -> dict[str, str]:
    """Return the variables of a worker: one thread, and one GPU where there are several.

    Without the latter all workers of a machine would share its first GPU.
    """
    devices = visible_devices()
    pinned = {DEVICES: devices[number % len(devices)]} if len(devices) > 1 else {}
    return ONE_THREAD | pinned


@contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def interruption_delayed() -> Iterator[None]:
    """Start a process with Ctrl-C blocked.

    A process inherits it: it imports for seconds and would print a traceback if it were interrupted
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


def end_at_interruption() -> None:
    """In a worker: Ctrl-C and SIGTERM end it at once, without a traceback."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def keep_tqdm_from_semaphores() -> None:
    """Give tqdm, which MACE's libraries start for themselves, a lock of this process alone.

    Its own is a semaphore of the system, to share a terminal with processes that it starts; one
    that is killed leaves it behind, and Python says so at the end of the campaign.
    """
    with suppress(ImportError):
        from tqdm import tqdm

        tqdm.set_lock(threading.RLock())
