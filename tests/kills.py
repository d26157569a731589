"""Kills a process at each of its file operations in turn, to see what is left of its files."""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

MAX_STEPS = 500


def killed_at_each_step(folder: Path, write: Callable[[], object]) -> Iterator[None]:
    """Run `write` in one forked process after the other; yield after the end of each.

    The first is killed (SIGKILL) before its first file operation in `folder`, the next before its
    second, and so on, until one reaches its end.
    """
    for step in itertools.count(1):
        assert step < MAX_STEPS
        child = os.fork()
        if not child:
            try:
                _die_at(step, folder)
                write()
            except BaseException:  # noqa: BLE001 (the parent must not run twice)
                os._exit(1)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, -signal.SIGKILL)
        yield
        if status == 0:
            return


def _die_at(step: int, folder: Path) -> None:
    left = step

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event.startswith(("open", "os.")) and any(
            isinstance(each, str | os.PathLike) and os.fspath(each).startswith(str(folder))
            for each in arguments
        ):
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
