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
from pathlib import Path
from typing import Any

import parsl  # the group adit.executors imports this module when somebody asks for it
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.providers import LocalProvider

from adit_plugins.workers import available_cores

_TEMPORARY = str(Path(tempfile.gettempdir()) / "adit-parsl-")  # Parsl's own files, of this machine


class ParslExecutor(Executor):
    """A `concurrent.futures.Executor` over a Parsl kernel.

    A task whose worker or node is lost raises in its future, and the campaign tries it again.
    """

    def __init__(self, config: Config, num_workers: int) -> None:
        """Start the kernel; nodes come as tasks do."""
        # Parsl starts its own programs by name; an environment need not be activated.
        programs = str(Path(sys.executable).parent)
        if programs not in os.environ["PATH"].split(os.pathsep):
            os.environ["PATH"] = f"{programs}{os.pathsep}{os.environ['PATH']}"
        self.num_workers = num_workers
        self._kernel = parsl.DataFlowKernel(config)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Hand a task over; arguments and results travel by pickle."""
        app = parsl.python_app(_call, data_flow_kernel=self._kernel)
        future: Future[Any] = app(fn, args, kwargs)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the kernel and its workers."""
        self._kernel.cleanup()
        if self._kernel.config.run_dir.startswith(_TEMPORARY):
            shutil.rmtree(self._kernel.config.run_dir, ignore_errors=True)


def _call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One app for all: Parsl wants a function with a name, a campaign sends partial ones."""
    return function(*args, **kwargs)


def make_executor(argument: str | None, workers: int | None, time_limit: float) -> ParslExecutor:
    """Return the executor; see `adit_plugins.campaign.executors`.

    Args:
        argument: a Python file with a `config`; None for workers on this machine.
        workers: on this machine; with a file, how many chunks to have ready (None: 64).
        time_limit: a cluster has its own (walltime); not used.

    Raises:
        ValueError: the file cannot be read or holds no Parsl config.
    """
    if argument is None:
        count = workers or available_cores()
        return ParslExecutor(local_config(count), count)
    path = Path(argument)
    if not path.is_file():
        raise ValueError(f"--executor parsl:{argument}: there is no such file.")
    config = runpy.run_path(str(path)).get("config")
    if not isinstance(config, Config):
        raise ValueError(f"{path} defines no `config` of the class parsl.config.Config.")
    return ParslExecutor(config, workers or 64)


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
                provider=LocalProvider(init_blocks=1, max_blocks=1),
                encrypted=False,
            )
        ],
        run_dir=tempfile.mkdtemp(prefix=Path(_TEMPORARY).name),
        initialize_logging=False,
        retries=0,  # the campaign has its own
    )
