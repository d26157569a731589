"""What work says while it goes on: where it is, what it has found, and that an item is finished.

Work takes a list of items and yields `At` before it begins with some of them, then a `Part` for
each thing that it finds. Worker processes of this package send these on at once, so that what was
found survives the process; `collect` makes of them what any executor understands: a list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Work = Callable[[Sequence[Any]], Iterable["At | Part"]]

TIME_LIMIT = "time limit"
DIED = "worker process died"


@dataclass(frozen=True)
class At:
    """These items are at work from now on; the clock of the time limit begins.

    Attributes:
        places: in the list of items.
        seconds: that they may take; None for the worker's limit, times their number.
    """

    places: tuple[int, ...]
    seconds: float | None = None


@dataclass(frozen=True)
class Part:
    """Something that was found.

    Attributes:
        place: of the item.
        value: anything that can be pickled; an `End` says that the item is finished.
    """

    place: int
    value: Any


@dataclass(frozen=True)
class End:
    """An item is finished.

    Attributes:
        problem: empty, or why there is no more: `TIME_LIMIT`, `DIED`, or what was raised.
    """

    problem: str = ""


@dataclass(frozen=True)
class Each(Generic[Item]):
    """Work on one item after the other; what is wrong with one is in its `End`.

    Attributes:
        work: importable by name; yields parts of an item's result.
        seconds: that an item may take; None for the worker's limit.
    """

    work: Callable[[Item], Iterable[Any]]
    seconds: Callable[[Item], float] | float | None = None

    def __call__(self, items: Sequence[Item]) -> Iterator[At | Part]:
        """Work on the items in order."""
        for place, item in enumerate(items):
            yield At((place,), self.seconds(item) if callable(self.seconds) else self.seconds)
            try:
                for value in self.work(item):
                    yield Part(place, value)
            except Exception as error:  # noqa: BLE001 - one bad item must not cost the others
                yield Part(place, End(f"{type(error).__name__}: {error}"))
            else:
                yield Part(place, End())


def collect(work: Work, items: Sequence[Any]) -> list[Any]:
    """Do work wherever this is called; return the last that each item has yielded, in order.

    Raises:
        RuntimeError: work on an item has failed.
    """
    found: dict[int, Any] = {}
    for message in work(items):
        tell(message)
        if isinstance(message, At):
            continue
        if not isinstance(message.value, End):
            found[message.place] = message.value
        elif message.value.problem:
            raise RuntimeError(message.value.problem)
    return [found[place] for place in range(len(items))]


_parent: Connection | None = None  # of a worker process


def tell(message: At | Part) -> None:
    """Say something to the process that has started this one, if it is one of this package."""
    if _parent is not None:
        _parent.send(message)


def tell_to(parent: Connection) -> None:
    """In a worker: `tell` speaks to this end."""
    global _parent
    _parent = parent
