"""Programs that are not ours: one that is asked by lines and answers by lines, or one that ends.

The program gets one pipe more that never carries a word. When this process is gone, whatever it
died of, the system ends the program by a signal on that pipe: also one that hangs in compiled code,
which would hear of nothing else.
"""

from __future__ import annotations

import os
import select
import subprocess
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO, Any

from adit_plugins.processes import environment
from adit_plugins.processes.messages import DIED, TIME_LIMIT
from adit_plugins.processes.worker import LostError, starting

PIECE = 1 << 16  # bytes read at once
LIFELINE = "ADIT_LIFELINE"  # the variable that tells the program the number of the pipe
LAST_WORDS = 2000  # bytes of what a program wrote on stderr


class Program:
    """A program with a pipe to and from it; ended with this process, or by `stop`."""

    def __init__(self, command: Sequence[str], values: Mapping[str, str] | None = None) -> None:
        """Start it.

        Args:
            command: the program and its arguments.
            values: environment variables that it gets besides.

        Raises:
            OSError: it cannot be started.
        """
        theirs, ours = os.pipe()
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the program
        try:
            with starting, environment.interruption_delayed():
                self._process = subprocess.Popen(  # noqa: S603 - the user names the program
                    list(command),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._errors,
                    pass_fds=(theirs,),
                    env=os.environ | dict(values or {}) | {LIFELINE: str(theirs)},
                    bufsize=0,
                )
        except BaseException:
            os.close(ours)
            self._errors.close()
            raise
        finally:
            os.close(theirs)
        self._rest = b""
        self._end = weakref.finalize(self, _end, self._process, ours, self._errors)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def ask(self, line: bytes, seconds: float) -> bytes:
        """Send a line and return the line that it answers.

        Args:
            line: without its end.
            seconds: that the answer may take.

        Raises:
            LostError: the program is gone, or was ended as it took too long.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        deadline = time.monotonic() + seconds
        left = memoryview(line + b"\n")
        given, taken = self._process.stdin.fileno(), self._process.stdout.fileno()
        # Both ways at once: a program that writes before it has read all would stall us otherwise.
        while b"\n" not in self._rest:
            wait = max(0.0, deadline - time.monotonic())
            readable, writable, _ = select.select([taken], [given] if left else [], [], wait)
            if not readable and not writable:
                self.stop()
                raise LostError(f"{TIME_LIMIT}: no answer in {seconds:g} s", TIME_LIMIT, [])
            with suppress(BrokenPipeError):  # the end of what it says will be found
                if writable:
                    left = left[os.write(given, left[: select.PIPE_BUF]) :]
            if readable:
                piece = os.read(taken, PIECE)
                if not piece:
                    self._lost()
                self._rest += piece
        answer, _, self._rest = self._rest.partition(b"\n")
        return answer

    def _lost(self) -> None:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5.0)
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - LAST_WORDS))
        said = [line for line in self._errors.read().decode(errors="replace").splitlines() if line]
        status = self._process.returncode
        how = f"signal {-status}" if status is not None and status < 0 else f"exit status {status}"
        self.stop()
        last = f"; its last words: {' '.join(said[-1].split())[:200]}" if said else ""
        raise LostError(f"{DIED}: {how}{last}", DIED, [])

    def stop(self) -> None:
        """End it, whatever it does."""
        self._end()


def _end(process: subprocess.Popen[bytes], lifeline: int, errors: IO[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    os.close(lifeline)
    errors.close()


def run_program(
    command: Sequence[str], told: Callable[[str], Any], values: Mapping[str, str] | None = None
) -> None:
    """Run a program to its end and hand on what it says, line by line.

    Args:
        command: the program and its arguments.
        told: called with each line of its output.
        values: environment variables that it gets besides.

    Raises:
        OSError: it cannot be started.
        RuntimeError: it fails; with its last lines.
    """
    said: list[str] = []
    with subprocess.Popen(  # noqa: S603 - the user names the program
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | dict(values or {}),
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                said = [*said[-20:], line.rstrip()]
                told(line.rstrip())
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        errors = [each for each in said if each.startswith("ERROR")] or said[-3:]
        raise RuntimeError(" ".join(errors) or f"exit status {process.returncode}")
