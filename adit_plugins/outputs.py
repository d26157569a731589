"""Values that JSON can hold, tables that a terminal can, and where a user's own things are."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

TEXT_WIDTH = 12  # characters at least of a text that is folded
PADDING = 3  # between two columns
_AS_THEY_ARE = {str, bool, int, type(None)}
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


HOME = "ADIT_HOME"


def own_folder() -> Path:
    """Return the folder of what a user has made for all projects: `$ADIT_HOME`, or one at home.

    Raises:
        OSError: this user has no home folder.
    """
    given = os.environ.get(HOME)
    try:
        return Path(given) if given else Path.home() / ".local" / "share" / "adit-plugins"
    except RuntimeError as error:
        raise OSError(f"No home folder to keep things in: set HOME or {HOME}.") from error


def print_rows(
    console: Console,
    title: str,
    headings: Mapping[str, str],
    rows: Sequence[Mapping[str, str]],
    least: Sequence[str] = (),
) -> None:
    """Print a table as wide as the terminal, in which no number and no formula is cut or broken.

    Where it is narrow, columns are left out, which is said; where even that is not enough, each row
    is printed as lines.

    Args:
        console: to print on.
        title: above it.
        headings: each with `"left"` or `"right"`, where cells stay on one line since a formula or a
            number that is cut or broken says nothing; or `"text"`, which may go over several.
        rows: cells by heading.
        least: columns that can be left out, the least important first.
    """
    from rich.markup import escape

    needed = {
        name: _least_width([name, *(row[name] for row in rows)], form == "text")
        for name, form in headings.items()
    }
    names, left_out = list(headings), []
    for name in (*least, None):
        if sum(needed[each] + PADDING for each in names) < console.width:
            break
        if name is None:
            _print_lines(console, title, list(headings), rows)
            return
        if name in names:
            names.remove(name)
            left_out.append(name)
    table = _table(title)
    for name in names:
        if headings[name] == "text":
            table.add_column(name, overflow="fold", min_width=needed[name])
        else:
            justify: Any = headings[name]
            table.add_column(name, no_wrap=True, justify=justify)
    for row in rows:
        table.add_row(*(escape(row[name]) for name in names))
    console.print(table)
    if left_out:
        said = f"Left out, as the terminal is narrow: {', '.join(left_out)}."
        console.print(said, markup=False, highlight=False)


def _least_width(cells: Sequence[str], is_text: bool) -> int:
    """Characters that a column needs at least: a text is folded between its words."""
    from rich.cells import cell_len

    if not is_text:
        return max(map(cell_len, cells))
    return min(max(cell_len(word) for cell in cells for word in cell.split() or [""]), TEXT_WIDTH)


def _print_lines(
    console: Console, title: str, names: Sequence[str], rows: Sequence[Mapping[str, str]]
) -> None:
    console.print(title, style="bold", markup=False, highlight=False)
    for row in rows:
        for name in names:
            console.print(f"{name}: {row[name]}", markup=False, highlight=False, soft_wrap=True)
        console.print()


def _table(title: str) -> Table:
    from rich import box
    from rich.table import Table as RichTable

    return RichTable(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
    )


def common_prefix(ids: Sequence[str]) -> str:
    """Return what all ids begin with, up to a slash; empty for one id or none."""
    parents = {"/".join(each.split("/")[:-1]) for each in ids}
    shared = os.path.commonpath(list(parents)) if all(parents) and len(ids) > 1 else ""
    return f"{shared}/" if shared else ""


def without_nan(value: Any) -> Any:
    """Return the value for JSON, which knows no NaN, and nothing of numpy."""
    kind = type(value)
    if kind in _AS_THEY_ARE:  # first, since most values are
        return value
    if kind is float:
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(each) for each in value]
    if hasattr(value, "tolist"):  # a number or an array of numpy
        return without_nan(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return in words in which names what was recorded differs from what is asked for.

    Of mappings within, only what differs in them.
    """
    now = json.loads(json_text(now))
    found: list[str] = []
    for name in {**before, **now}:
        old, new = before.get(name), now.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new)
        elif old != new:
            found.append(f"{name} was {old!r}, not {new!r}")
    return found


def json_text(value: Any) -> str:
    """Return `without_nan` of a value as a line of JSON, in a tenth of the time."""
    try:
        return orjson.dumps(value, option=_OPTIONS).decode()  # NaN becomes null
    except TypeError:  # a whole number of more than 64 bits, or half a character
        return json.dumps(without_nan(value), allow_nan=False)
