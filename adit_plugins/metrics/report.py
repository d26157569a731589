"""Rates and numbers of one set or several side by side: terminal, Markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from adit_plugins.metrics.rates import Rate
from adit_plugins.outputs import without_nan

if TYPE_CHECKING:
    from rich.console import Console

    from adit_plugins.metrics.evaluation import SetMetrics

Grid = list[list[str]]  # the first row is the heading
KINDS = ("crystals", "molecules")
WORDS, NAME, EDGE = 14, 14, 3  # characters: of words and headings at least, of a column's frame


def rates_grid(sets: Mapping[str, Sequence[Rate]]) -> Grid:
    """Return a table of rates: one set gives number, share and base; several a column each."""
    if len(sets) == 1:
        [rates] = sets.values()
        rows = [[r.name, f"{r.numerator}/{r.denominator}", r.percent, r.of] for r in rates]
        return [["", "number", "share", "of"], *rows]
    by_key = {name: {(r.name, r.of): r for r in rates} for name, rates in sets.items()}
    keys = list(dict.fromkeys(key for found in by_key.values() for key in found))
    grid = [["", "of", *sets]]
    for key in keys:
        cells = [found.get(key) for found in by_key.values()]
        grid.append([*key, *("" if r is None else _cell(r) for r in cells)])
    return grid


def values_grid(sets: Mapping[str, Mapping[str, float | None]]) -> Grid:
    """Return a table of numbers that are no rates, a column a set."""
    names = list(dict.fromkeys(name for values in sets.values() for name in values))
    rows = [[name, *(_number(values.get(name)) for values in sets.values())] for name in names]
    return [["", *(sets if len(sets) > 1 else ["value"])], *rows]


def print_grid(console: Console, title: str, grid: Grid, text_columns: Sequence[int] = ()) -> None:
    """Print a table; the first column and `text_columns` are words, which may be folded.

    Where not all columns of numbers fit beside them, the rest follows in tables of their own.
    """
    from rich.table import Table

    words = [0, *text_columns]
    numbers = [place for place in range(len(grid[0])) if place not in words]
    widths = {place: _width(grid, place) for place in numbers}
    room = console.width - sum(min(_width(grid, place), WORDS) + EDGE for place in words)
    while numbers:
        part = numbers[:1]
        for place in numbers[1:]:
            if sum(widths[each] + EDGE for each in (*part, place)) > room:
                break
            part.append(place)
        numbers = numbers[len(part) :]
        table = Table(title=title, title_justify="left", title_style="bold")
        columns = sorted([*words, *part])
        for place in columns:
            text = place in words
            heading = _folded(grid[0][place], max(widths.get(place, WORDS), NAME))
            table.add_column(
                heading, justify="left" if text else "right", overflow="fold", no_wrap=not text
            )
        for row in grid[1:]:
            table.add_row(*(row[place] for place in columns))
        console.print(table)


def _width(grid: Grid, place: int) -> int:
    """Characters of the widest cell below a heading, which can be folded."""
    return max([min(len(grid[0][place]), NAME), *(len(row[place]) for row in grid[1:])])


def _folded(heading: str, width: int) -> str:
    return "\n".join(heading[i : i + width] for i in range(0, len(heading), width))


def print_rates(console: Console, title: str, sets: Mapping[str, Sequence[Rate]]) -> None:
    """Print the rates of one set, or of several side by side."""
    print_grid(console, title, rates_grid(sets), [3] if len(sets) == 1 else [1])


def print_report(console: Console, sets: Sequence[SetMetrics]) -> None:
    """Print all tables and notes."""
    for kind in KINDS:
        found = _of_kind(sets, kind)
        if not found:
            continue
        title = kind.capitalize() + (f" of {next(iter(found))}" if len(found) == 1 else "")
        print_rates(console, title, {name: each.rates for name, each in found.items()})
        values = {name: _values(each) for name, each in found.items()}
        if any(values.values()):
            print_grid(console, f"{kind.capitalize()}: other numbers", values_grid(values))
    for note in _notes(sets):
        console.print(note, style="dim", markup=False)


def as_markdown(sets: Sequence[SetMetrics]) -> str:
    """Return the same tables, with what each rate means, as Markdown."""
    parts = []
    for kind in KINDS:
        found = _of_kind(sets, kind)
        if not found:
            continue
        parts += [f"## {kind.capitalize()}", ""]
        if len(found) == 1:
            parts += [f"`{next(iter(found))}`", ""]
        parts += [_markdown(rates_grid({name: each.rates for name, each in found.items()})), ""]
        values = {name: _values(each) for name, each in found.items()}
        if any(values.values()):
            parts += [_markdown(values_grid(values)), ""]
        meanings = {r.name: r.note for each in found.values() for r in each.rates if r.note}
        parts += [*(f"- {name}: {note}" for name, note in meanings.items()), ""]
    return "\n".join([*parts, *(f"- {note}" for note in _notes(sets)), ""])


def as_json(sets: Sequence[SetMetrics], recipe: Mapping[str, Any]) -> str:
    """Return everything, with a row for each structure and NaN as null, as JSON."""
    content = {
        "format": "adit evaluate",
        "recipe": dict(recipe),
        "sets": [
            {
                "name": each.name,
                "path": each.path,
                "notes": each.notes,
                "seconds": each.seconds,
                **{
                    kind: _as_dict(metrics)
                    for kind, metrics in (
                        ("crystals", each.crystals),
                        ("molecules", each.molecules),
                    )
                    if metrics is not None
                },
            }
            for each in sets
        ],
    }
    return json.dumps(without_nan(content), indent=1, allow_nan=False) + "\n"


def _of_kind(sets: Sequence[SetMetrics], kind: str) -> dict[str, Any]:
    return {each.name: getattr(each, kind) for each in sets if getattr(each, kind) is not None}


def _values(metrics: Any) -> dict[str, float | None]:
    return dict(getattr(metrics, "values", {}))


def _as_dict(metrics: Any) -> dict[str, Any]:
    return {
        "rates": [rate.as_dict() for rate in metrics.rates],
        "values": _values(metrics),
        "notes": metrics.notes,
        "distributions": metrics.distributions,
        "rows": metrics.rows,
    }


def _notes(sets: Sequence[SetMetrics]) -> list[str]:
    """Notes of all sets; those that are the same everywhere once."""
    notes: dict[str, list[str]] = {}
    for each in sets:
        found = [*each.notes]
        for kind in KINDS:
            metrics = getattr(each, kind)
            found += [] if metrics is None else metrics.notes
        for note in found:
            notes.setdefault(note, []).append(each.name)
    several = len(sets) > 1
    return [
        f"{', '.join(names)}: {note}" if several and len(names) < len(sets) else note
        for note, names in notes.items()
    ]


def _cell(rate: Rate) -> str:
    return f"{rate.percent} ({rate.numerator}/{rate.denominator})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _markdown(grid: Grid) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(grid[0]), line(["---"] * len(grid[0])), *map(line, grid[1:])])
