"""What the pages take from the code: every command with its options, and the notebooks' cells.

`mkdocs` calls `on_page_markdown` for each page (https://www.mkdocs.org/user-guide/configuration).
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

HERE = Path(__file__).parent


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the generated parts in the places of their marks."""
    if "<!-- commands -->" in markdown:
        markdown = markdown.replace("<!-- commands -->", "\n".join(commands()))
    markdown = re.sub(
        r"<!-- api (\S+) -->", lambda found: "\n".join(public_names(found[1])), markdown
    )
    return re.sub(r"<!-- notebook (\S+) -->", lambda found: notebook(found[1]), markdown)


def public_names(room: str) -> Iterator[str]:
    """Yield a heading and the docstring of each public name of a package, for mkdocstrings.

    The names are looked up where they are defined, as packages load them at their first use.
    """
    package = importlib.import_module(room)
    for name in sorted(package.__all__, key=str.lower):
        thing = getattr(package, name)
        home = getattr(thing, "__module__", None)
        if not isinstance(home, str) or not hasattr(thing, "__qualname__"):
            continue  # a constant
        yield f"### {name}\n"
        yield f"::: {home}.{thing.__qualname__}\n"


def commands() -> Iterator[str]:
    """Yield the page of all commands, as the code declares them."""
    from adit_plugins.cli import main

    context = click.Context(main, info_name="adit")
    yield from _group(main, context, "adit")


def _group(group: click.Group, parent: click.Context, path: str) -> Iterator[str]:
    for name in sorted(group.commands):
        command, where = group.commands[name], f"{path} {name}"
        context = click.Context(command, parent=parent, info_name=name)
        yield f"## {where}\n"
        yield f"{_paragraphs(command.help or '')}\n"
        if isinstance(command, click.Group):
            yield from _group(command, context, where)
            continue
        if where in ("adit train", "adit improve"):  # their options are argparse's, without click
            parsers = training_parsers().values() if name == "train" else [improving_parser()]
            yield from (f"```\n{each.format_help()}```\n" for each in parsers)
            continue
        usage = command.get_usage(context).removeprefix("Usage: ")
        yield f"```\n{usage}\n```\n"
        rows = [found for each in command.params if (found := each.get_help_record(context))]
        if rows:
            yield "| option | |\n| --- | --- |"
            yield from (f"| `{_cell(option)}` | {_cell(text)} |" for option, text in rows)
            yield ""


def training_parsers() -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of `adit train` by stage."""
    from adit_model.training import cli as training_cli
    from adit_plugins import registry

    parsers = {"autoencoder": training_cli.parser()}  # the denoiser's is the same
    for name in registry.names("adit.trainers"):
        module = sys.modules[registry.load("adit.trainers", name).__module__]
        parsers[name] = module.parser()
    return parsers


def improving_parser() -> argparse.ArgumentParser:
    """Return the parser of `adit improve`."""
    from adit_plugins.cli.improve import parser

    return parser()


def _paragraphs(text: str) -> str:
    return re.sub(r"(?<!\n)\n(?!\n)", " ", text.replace("\b", "")).strip()


def _cell(text: str) -> str:
    plain = " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
    return plain.replace("[", "&#91;")  # no reference to the description of an object


def notebook(name: str) -> str:
    """Return a notebook's cells as a page, with what they showed when they were stored."""
    content = json.loads((HERE / "notebooks" / name).read_text(encoding="utf-8"))
    parts = [f"[Download this notebook]({name}){{ download }}. The tests run it."]
    for cell in content["cells"]:
        source = "".join(cell["source"])
        parts.append(f"```python\n{source}\n```" if cell["cell_type"] == "code" else source)
        parts += [_shown(output) for output in cell.get("outputs", ())]
    return "\n\n".join(parts)


def _shown(output: dict[str, Any]) -> str:
    """An output as HTML where it has any, as a picture, or as text."""
    data = output.get("data", {})
    if "text/html" in data:
        lines = "".join(data["text/html"]).splitlines()
        return f"<div>{' '.join(line.strip() for line in lines)}</div>"
    if "image/png" in data:
        picture = "".join("".join(data["image/png"]).split())
        return f'<img alt="Output of the cell" src="data:image/png;base64,{picture}">'
    text = "".join(data.get("text/plain", output.get("text", ""))).rstrip()
    return f"```text\n{text}\n```"
