"""One process that does what it is told, and can be ended whatever it does.

Compiled code such as a conformer search ignores signals and exceptions: only ending its process
ends it. Each worker has a pipe of its own, so what stalls or kills it is known.
"""

from __future__ import annotations

import logging
import multiprocessing
import pickle
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from adit_plugins.processes import environment
from adit_plugins.processes.messages import DIED, TIME_LIMIT, At, Part, tell_to

FAREWELL_SECONDS = 5.0  # for an idle process to end by itself
SLOW_SECONDS = 30.0  # that the log tells
STARTS = 3  # of a process that dies before it can say that it is there

log = logging.getLogger(__name__)
starting = threading.Lock()  # what children inherit is set for the whole process

Told = Callable[[At | Part], None]


class LostError(RuntimeError):
    """The process that worked on something is gone, or was ended at the time limit.

    Attributes:
        problem: `DIED` or `TIME_LIMIT`.
        told: what it had said.
    """

    def __init__(self, message: str, problem: str, told: list[At | Part]) -> None:
        super().__init__(message, problem, told)  # all of it travels by pickle
        self.problem, self.told = problem, told

    def __str__(self) -> str:
        return str(self.args[0])


class WorkerStartError(RuntimeError):
    """No process can start; no work is to blame."""


def launch(
    target: Callable[..., None],
    arguments: tuple[Any, ...] = (),
    values: Mapping[str, str] | None = None,
    method: str = "spawn",
) -> tuple[BaseProcess, Connection]:
    """Start a process; `target` gets its end of a pipe, then the arguments.

    Args:
        target: importable by name, unless the process is a fork.
        arguments: picklable, unless the process is a fork.
        values: environment variables.
        method: `"spawn"`; a fork of a process with threads, such as torch's, may hang.

    Returns:
        The process, which ends with this one, and our end of the pipe.
    """
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    if method == "fork":  # which has all that is open here; our end would hide that we are gone
        target, arguments = _without, (ours, target, *arguments)
    process = context.Process(  # type: ignore[attr-defined]
        target=target, args=(theirs, *arguments), daemon=True
    )
    with starting, environment.variables(values or {}), environment.interruption_delayed():
        process.start()
    theirs.close()
    log.debug("process %s has started", process.pid)
    return process, ours


def _since(begun: float) -> float:
    """Say so if something was slow; return the time."""
    now = time.monotonic()
    if now - begun > SLOW_SECONDS:
        log.info("a step of the work has taken %.0f s", now - begun)
    return now


def _without(
    theirs: Connection, ours: Connection, target: Callable[..., None], *arguments: Any
) -> None:
    ours.close()
    target(theirs, *arguments)


class Worker:
    """One process at a time, replaced when it is lost."""

    def __init__(
        self, values: Mapping[str, str] | None = None, prepare: Callable[[], None] | None = None
    ) -> None:
        """Start nothing yet.

        Args:
            values: environment variables of its processes.
            prepare: called once in each new process (imports), outside of any time limit.
        """
        self.values, self.prepare = values, prepare
        self._ended = False
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None

    @property
    def pid(self) -> int | None:
        """Of the process, if there is one."""
        return None if self._process is None else self._process.pid

    def run(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], time_limit: float,
        start_seconds: float = 0.0, told: Told | None = None,
    ) -> Any:  # fmt: skip
        """Call a function in the process and return its result, or raise what it raises.

        Args:
            function: importable by name.
            arguments: picklable.
            time_limit: seconds for each thing that it says it is `At`, or for all without a word.
            start_seconds: more for what comes before the first word, such as loading a potential.
            told: called with what it says by `tell`.

        Raises:
            LostError: the process is gone, or has taken too long.
            WorkerStartError: none can start.
        """
        pipe = self._ready()
        heard: list[At | Part] = []
        allowed = time_limit + start_seconds
        begun = time.monotonic()
        deadline = begun + allowed
        with suppress(OSError):  # it died while idle: the end of the pipe will be found
            pipe.send((function, arguments))
        while True:
            try:
                if not pipe.poll(max(0.0, deadline - time.monotonic())):
                    text = f"no answer in {allowed:g} s"
                    log.info("process %s is ended: %s", self.pid, text)
                    self.stop()
                    raise LostError(text, TIME_LIMIT, heard)
                message = pipe.recv()
            except (EOFError, OSError):
                log.info("process %s has died", self.pid)
                self.stop()
                raise LostError(DIED, DIED, heard) from None
            if isinstance(message, At | Part):
                heard.append(message)
                begun = _since(begun)
                if isinstance(message, At):
                    allowed = message.seconds or time_limit * len(message.places)
                    deadline = time.monotonic() + allowed
                if told is not None:
                    told(message)
                continue
            result, error = message
            if error is not None:
                raise error
            return result

    def _ready(self) -> Connection:
        """Return the pipe to a process that waits for work.

        Raises:
            WorkerStartError: processes die before they are ready, again and again.
        """
        if self._process is not None and self._process.is_alive() and self._pipe is not None:
            return self._pipe
        for _ in range(STARTS):
            if self._ended:
                break
            self.stop()
            self._process, self._pipe = launch(_serve, (self.prepare,), self.values)
            if self._ended:  # meanwhile
                break
            with suppress(EOFError, OSError):
                self._pipe.recv()
                return self._pipe
        self.stop()
        raise WorkerStartError(
            "Worker processes die at the start. A script that works in processes needs its "
            'work under `if __name__ == "__main__":`; or use workers=0.'
        )

    def dismiss(self) -> None:
        """Let an idle process end by itself, which gives back what its libraries hold."""
        if self._process is not None and self._pipe is not None:
            self._pipe.close()
            self._process.join(FAREWELL_SECONDS)
        self.stop()

    def kill(self) -> None:
        """End the process from another thread, for good."""
        self._ended = True
        if (process := self._process) is not None:
            process.kill()

    def stop(self) -> None:
        """End the process whatever it does."""
        if self._process is not None and self._pipe is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
        self._process = self._pipe = None


def _serve(pipe: Connection, prepare: Callable[[], None] | None) -> None:
    """In a worker: say when ready, then answer until the parent is gone."""
    environment.end_at_interruption()
    environment.keep_tqdm_from_semaphores()
    warnings.simplefilter("ignore")  # what is wrong with a structure is in its result
    if prepare is not None:
        prepare()
    tell_to(pipe)
    with suppress(EOFError, OSError):
        pipe.send(None)
        while True:
            function, arguments = pipe.recv()
            answer: tuple[Any, Exception | None]
            try:
                answer = function(*arguments), None
            except Exception as error:  # noqa: BLE001 - raised again where the result is wanted
                answer = None, error
            try:
                pipe.send(answer)
            except (pickle.PicklingError, TypeError, AttributeError) as error:
                pipe.send((None, TypeError(f"{answer[1] or 'the result'} cannot be sent: {error}")))
