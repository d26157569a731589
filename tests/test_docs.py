"""The documentation is true: it builds without a network, and what it shows runs.

Examples run as they stand, but for numbers of samples and steps, which become small.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from adit_plugins.cli import main

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
NOTEBOOKS = sorted(DOCS.glob("notebooks/*.ipynb"))
FEW = 4
COUNTS = {"num", "num_steps", "max_steps"}  # keywords
COUNTED = {"generate", "sample", "samples", "stream", "slice"}  # what takes a number as it is


def fenced(path: Path, language: str) -> Iterator[str]:
    """Yield the code blocks of a language that are not marked as not to be run."""
    pattern = rf"(<!-- not run: [^>]+ -->\n)?^```{language}\n(.*?)^```"
    for marked, code in re.findall(pattern, path.read_text(), flags=re.MULTILINE | re.DOTALL):
        if not marked:
            yield code


def test_what_is_to_be_copied_is_there() -> None:
    named = re.findall(r"`([\w./-]+\.py):(\w+)`", (ROOT / "CONTRIBUTING.md").read_text())
    assert len(named) > 10
    for file, name in named:
        tree = ast.parse((ROOT / file).read_text())
        assert name in {getattr(node, "name", "") for node in tree.body}, (file, name)


class Smaller(ast.NodeTransformer):
    """Makes numbers of samples and steps small; nothing else changes."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        for keyword in node.keywords:
            if keyword.arg in COUNTS:
                keyword.value = self.small(keyword.value)
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name in COUNTED:
            node.args = [self.small(each) for each in node.args]
        return node

    def small(self, node: ast.expr) -> ast.expr:
        if isinstance(node, ast.Constant) and type(node.value) is int and node.value > FEW:
            return ast.copy_location(ast.Constant(FEW), node)
        return node


def test_smaller_changes_counts_alone() -> None:
    code = "ADiTGenerator(num_steps=50, seed=99).generate(100); f(100); slice(0, 1000); g(num=1)"
    assert ast.unparse(Smaller().visit(ast.parse(code))) == (
        "ADiTGenerator(num_steps=4, seed=99).generate(4)\nf(100)\nslice(0, 4)\ng(num=1)"
    )


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default of 50 steps is small too, where an example does not mention it."""
    from adit_plugins import ADiTGenerator

    usual = ADiTGenerator.__init__

    def few_steps(self: Any, *arguments: Any, **fields: Any) -> None:
        usual(self, *arguments, **{"num_steps": FEW, **fields})

    few_steps.__signature__ = inspect.signature(usual)  # type: ignore[attr-defined] # monty keeps it
    monkeypatch.setattr(ADiTGenerator, "__init__", few_steps)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(fenced(page, "python"))], ids=lambda page: page.stem
)
def test_the_examples_of_a_page_run_in_order(
    page: Path, quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    for code in fenced(page, "python"):
        tree = ast.fix_missing_locations(Smaller().visit(ast.parse(code)))
        exec(compile(tree, page.name, "exec"), names)


def commands_of(page: Path) -> Iterator[list[str]]:
    for code in fenced(page, r"(?:bash)?"):
        whole = code.replace("\\\n", " ")
        for line in re.findall(r"^ *(adit .+)$", whole, flags=re.MULTILINE):
            yield shlex.split(line, comments=True)[1:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_line_is_one_that_adit_takes(page: Path) -> None:
    for arguments in commands_of(page):
        if arguments[0] == "train":
            parsers = training_parsers()
            stage = arguments[1] if arguments[1] in parsers else "autoencoder"
            parsers[stage].parse_args(arguments[1 if stage == "autoencoder" else 2 :])
            continue
        if arguments[0] == "improve":
            improving_parser().parse_args(arguments[1:])
            continue
        context = main.make_context("adit", list(arguments), resilient_parsing=True)
        command: click.Command = main
        rest = arguments
        while isinstance(command, click.Group):
            found = command.get_command(context, rest[0])
            assert found is not None, f"{page.name}: {' '.join(arguments)}"
            command, rest = found, rest[1:]
        shards = [each.replace("$SLURM_ARRAY_TASK_ID", "1") for each in rest]
        command.make_context(command.name, shards)  # raises where an option is wrong


TORCHRUN = re.compile(r"^torchrun .* -m adit_model\.training (.+)$", re.MULTILINE)
SBATCH = re.compile(r"^sbatch (examples/slurm/train\.sh) (\S+) (.+)$", re.MULTILINE)


def test_the_training_in_many_processes_is_one_that_the_parser_takes() -> None:
    text = (DOCS / "scale.md").read_text()
    lines = TORCHRUN.findall(text)
    lines += [f"{rest} --out {out}" for _, out, rest in SBATCH.findall(text)]
    assert len(lines) == 4
    for line in lines:
        training_parsers()["autoencoder"].parse_args(shlex.split(line))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_script_that_is_named_is_there(page: Path) -> None:
    for path in re.findall(r"(?:python |`)((?:benchmarks|examples)/[\w./-]+)", page.read_text()):
        assert (ROOT / path).exists(), f"{page.name} names {path}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation, built as CI does it; a warning is an error."""
    pytest.importorskip("material")
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def training_parsers() -> dict[str, Any]:
    found: dict[str, Any] = runpy.run_path(str(DOCS / "hooks.py"))["training_parsers"]()
    return found


def improving_parser() -> Any:
    return runpy.run_path(str(DOCS / "hooks.py"))["improving_parser"]()


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


@pytest.mark.slow  # `make docs` builds it, too
def test_the_built_page_has_every_command_and_option(site: Path) -> None:
    page = (site / "commands" / "index.html").read_text()
    for name, command in leaves(main):
        assert re.search(rf"<h2[^>]*>adit {name}", page), name
        start = re.search(rf"<h2[^>]*>adit {name}", page).start()  # type: ignore[union-attr]
        section = page[start : page.find("<h2", start + 4)]
        for option in command.params:
            for spelling in option.opts if isinstance(option, click.Option) else ():
                assert spelling in section, f"adit {name} {spelling}"
    for stage, parser in training_parsers().items():
        for action in parser._actions:
            assert all(each in page for each in action.option_strings), f"adit train {stage}"
    for action in improving_parser()._actions:
        assert all(each in page for each in action.option_strings), "adit improve"


def test_a_page_asks_nobody_when_it_is_opened(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text()
        loaded = re.findall(r"<(?:script|img|iframe)[^>]+src=\"(https?:[^\"]+)", text)
        linked = re.findall(r"<link[^>]+rel=\"(stylesheet|preconnect)\"[^>]+href=\"http", text)
        assert not loaded and not linked, page
    assert "<svg" in (site / "architecture.svg").read_text()
    for notebook in NOTEBOOKS:
        shown = (site / "notebooks" / notebook.stem / "index.html").read_text()
        assert "adit_plugins" in shown and (site / "notebooks" / notebook.name).exists()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_with_what_it_shows(path: Path) -> None:
    """`python docs/notebooks/store_outputs.py` writes them."""
    text = path.read_text(encoding="utf-8")
    assert len(text) < 300_000
    assert not re.search(r"/(tmp|home|root|Users|mnt)/", text), "a path of the machine"
    outputs = [output for cell in json.loads(text)["cells"] for output in cell.get("outputs", ())]
    assert len(outputs) > 3 and all(each["output_type"] != "error" for each in outputs)
    assert any("<svg" in str(each) or "image/png" in str(each) for each in outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient")
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, resources=resources).execute()
    shown = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.outputs]
    assert len(shown) > 3


@pytest.mark.slow  # `make docs` builds it, too
def test_the_built_page_describes_every_public_name(site: Path) -> None:
    page = (site / "api" / "index.html").read_text()
    for room in re.findall(r"<!-- api (\S+) -->", (DOCS / "api.md").read_text()):
        package = importlib.import_module(room)
        for name in package.__all__:
            if callable(getattr(package, name)):
                assert f'<h3 id="{name.lower()}' in page, f"{room}.{name}"
    assert "FrechetCellFilter" in page  # in the description of a relaxer


def test_the_paper_s_page_holds_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from stored_tables import sections

    text = (DOCS / "paper.md").read_text()
    tables = list(sections())
    assert len(tables) > 10
    for title, script, table in tables:
        assert f"## {title}" in text
        assert script.startswith("adit ") or (ROOT / "benchmarks" / script).exists()
        assert table in text, f"{title}: run python benchmarks/stored_tables.py"
