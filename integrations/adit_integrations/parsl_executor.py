"""Parsl as an executor of campaigns: from this machine to Slurm, PBS and one worker a GPU.

`--executor parsl` starts workers here; `--executor parsl:FILE.py` takes the `config` of a Python
file, which is Parsl's own configuration of a cluster.
"""

from __future__ import annotations

import os
import runpy
import shutil
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import parsl  # the group adit.executors imports this module when somebody asks for it
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.providers import LocalProvider

from adit_plugins.campaign.executors import START_SECONDS
from adit_plugins.processes import ProcessesExecutor, available_cores
from adit_plugins.processes.environment import ONE_THREAD

_TEMPORARY = str(Path(tempfile.gettempdir()) / "adit-parsl-")  # Parsl's own files, of this machine


class ParslExecutor(Executor):
    """A `concurrent.futures.Executor` over a Parsl kernel.

    A task whose worker or node is lost raises in its future, and the campaign tries it again. In
    each worker of Parsl a process does the work, so that a structure has its time limit there as on
    one machine, and what it had found before it was lost comes back.
    """

    remote = True

    def __init__(self, config: Config, num_workers: int, time_limit: float) -> None:
        """Start the kernel; nodes come as tasks do."""
        # Parsl starts its own programs by name; an environment need not be activated.
        programs = str(Path(sys.executable).parent)
        if programs not in os.environ["PATH"].split(os.pathsep):
            os.environ["PATH"] = f"{programs}{os.pathsep}{os.environ['PATH']}"
        self.num_workers, self._time_limit = num_workers, time_limit
        self._kernel = parsl.DataFlowKernel(config)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Hand a task over; arguments and results travel by pickle."""
        app = parsl.python_app(_call, data_flow_kernel=self._kernel)
        future: Future[Any] = app(self._time_limit, partial(fn, *args, **kwargs))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the kernel and its workers."""
        self._kernel.cleanup()
        if self._kernel.config.run_dir.startswith(_TEMPORARY):
            shutil.rmtree(self._kernel.config.run_dir, ignore_errors=True)


def _call(time_limit: float, function: Callable[[], Any]) -> Any:
    """One app for all: Parsl wants a function with a name, a campaign sends partial ones."""
    return _process(time_limit).submit(function).result()


@lru_cache(maxsize=1)
def _process(time_limit: float) -> ProcessesExecutor:
    """In a worker of Parsl: the process that works for it, for as long as it is there."""
    return ProcessesExecutor(1, time_limit, START_SECONDS)


def make_executor(argument: str | None, workers: int | None, time_limit: float) -> ParslExecutor:
    """Return the executor; see `adit_plugins.campaign.executors`.

    Args:
        argument: a Python file with a `config`; None for workers on this machine.
        workers: on this machine; with a file, how many chunks to have ready (None: 64).
        time_limit: seconds a structure.

    Raises:
        ValueError: the file cannot be read or holds no Parsl config.
    """
    if argument is None:
        count = workers or available_cores()
        return ParslExecutor(local_config(count), count, time_limit)
    path = Path(argument)
    if not path.is_file():
        raise ValueError(f"--executor parsl:{argument}: there is no such file.")
    config = runpy.run_path(str(path)).get("config")
    if not isinstance(config, Config):
        raise ValueError(f"{path} defines no `config` of the class parsl.config.Config.")
    return ParslExecutor(config, workers or 64, time_limit)


def local_config(workers: int) -> Config:
    """Return a configuration for processes of this machine, one core each."""
    return Config(
        executors=[
            HighThroughputExecutor(
                label="adit",
                address="127.0.0.1",
                max_workers_per_node=workers,
                cores_per_worker=1,
                heartbeat_period=2,
                heartbeat_threshold=20,
                provider=LocalProvider(
                    init_blocks=1,
                    max_blocks=1,
                    worker_init="\n".join(f"export {k}={v}" for k, v in ONE_THREAD.items()),
                ),
                encrypted=False,
            )
        ],
        run_dir=tempfile.mkdtemp(prefix=Path(_TEMPORARY).name),
        initialize_logging=False,
        retries=0,  # the campaign has its own
    )
