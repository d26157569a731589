"""An executor over worker processes of which each may die alone."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from adit_plugins.processes.environment import of_worker
from adit_plugins.processes.worker import Told, Worker

Task = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...], Told | None]


class ProcessesExecutor(Executor):
    """Worker processes of which each may die alone.

    The standard library's pool is lost as a whole with one of its workers, and does not say which
    task was to blame. Here a task whose process dies, or takes too long, gets `LostError`, the
    others go on, and the process is replaced. On a machine with several GPUs each worker has one.
    """

    def __init__(
        self,
        workers: int,
        time_limit: float,
        start_seconds: float = 0.0,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        """Start nothing yet; a process starts with its first task.

        Args:
            workers: processes.
            time_limit: seconds, as for `Worker.run`.
            start_seconds: as for `Worker.run`.
            prepare: called once in each new process.
        """
        self.num_workers = workers
        self._limits = time_limit, start_seconds
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._ended = False
        self._workers = [Worker(of_worker(number), prepare) for number in range(workers)]
        self._threads = [
            threading.Thread(target=self._serve, args=(worker,), daemon=True)
            for worker in self._workers
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Hand a task to the next free worker; `fn` must be importable by name."""
        if kwargs:
            raise TypeError(f"give {', '.join(kwargs)} by position")
        return self.start(fn, args)

    def start(
        self, fn: Callable[..., Any], args: tuple[Any, ...], told: Told | None = None
    ) -> Future[Any]:
        """Do as `submit` does, and call `told` in a thread of its own with what the task says."""
        if self._ended:
            raise RuntimeError("the executor is shut down")
        future: Future[Any] = Future()
        self._tasks.put((future, fn, args, told))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers, after what is queued or, with `cancel_futures`, now."""
        self._ended = True
        if cancel_futures:
            while True:
                try:
                    task = self._tasks.get_nowait()
                except queue.Empty:
                    break
                if task is not None:
                    task[0].cancel()
        for _ in self._threads:
            self._tasks.put(None)
        if cancel_futures:
            for worker in self._workers:
                worker.kill()
        if wait:
            for thread in self._threads:
                thread.join()

    def processes(self) -> list[int]:
        """Return the process ids of the workers."""
        return [worker.pid for worker in self._workers if worker.pid is not None]

    def _serve(self, worker: Worker) -> None:
        """In a thread: serve tasks with one process until there are no more."""
        try:
            while (task := self._tasks.get()) is not None:
                future, fn, args, told = task
                if not future.set_running_or_notify_cancel():
                    continue
                try:
                    future.set_result(worker.run(fn, args, *self._limits, told))
                except BaseException as error:  # noqa: BLE001 - of the task, or of its process
                    future.set_exception(error)
        finally:
            worker.dismiss()
