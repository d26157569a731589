"""Where chunks are worked on: any `concurrent.futures.Executor`, found by name.

The entry-point group `adit.executors` holds factories `(argument, workers, time_limit)`; `argument`
is what stands after the colon in `NAME:ARGUMENT`, or None. An executor of other machines has an
attribute `remote` that is true: then sampling goes through it, too.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, cast

from adit_plugins import registry
from adit_plugins.processes import ProcessesExecutor, available_cores

GROUP = "adit.executors"
START_SECONDS = 240.0  # on top of a limit, for the potentials that a worker loads


def make_executor(spec: str, workers: int | None, time_limit: float) -> Executor:
    """Return the executor of a name.

    Args:
        spec: `"serial"`, `"processes"`, `"parsl"`, `"parsl:FILE.py"`, or a plugin's.
        workers: None for one a core; 0 makes processes serial.
        time_limit: seconds a structure.

    Raises:
        UnknownPluginError: there is none of that name.
        MissingExtraError: its package is not installed.
        ValueError: the argument is not understood.
    """
    name, _, argument = spec.partition(":")
    if name == "processes" and workers == 0:
        name = "serial"
    factory = registry.load(GROUP, name)
    return cast(Executor, factory(argument or None, workers, time_limit))


def make_serial(argument: str | None, workers: int | None, time_limit: float) -> SerialExecutor:
    """Do everything in this process, where nothing can be stopped."""
    _no_argument("serial", argument)
    return SerialExecutor()


def make_processes(
    argument: str | None, workers: int | None, time_limit: float
) -> ProcessesExecutor:
    """Do everything in processes of this machine."""
    _no_argument("processes", argument)
    return ProcessesExecutor(workers or available_cores(), time_limit, START_SECONDS)


def _no_argument(name: str, argument: str | None) -> None:
    if argument is not None:
        raise ValueError(f"The executor '{name}' takes no argument; got '{argument}'.")


class SerialExecutor(Executor):
    """A task is finished when `submit` returns."""

    num_workers = 1

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call `fn` now."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - it belongs to the future, as in any executor
            future.set_exception(error)
        return future
