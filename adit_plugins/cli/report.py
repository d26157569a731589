"""`adit report`: the results as one HTML page."""

from __future__ import annotations

from pathlib import Path

import click

from adit_model.outputs import check_writable


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="DIR...", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="[default: report.html in DIR, or beside a file]",
)
@click.option(
    "--explore",
    is_flag=True,
    help="Write explore.html beside it, a page with chemiscope in it, which is to be installed.",
)
@click.option("--open", "open_it", is_flag=True, help="Show it in the browser.")
def report(paths: tuple[Path, ...], out: Path | None, explore: bool, open_it: bool) -> None:
    """Write one HTML page to look at results: it opens from disk and asks no server.

    DIR is the folder of a campaign, also of one that still runs, the JSON of `adit evaluate`, or
    any file or folder of structures; several are put side by side.
    """
    from adit_plugins.report import REPORT, read_results, write_report
    from adit_plugins.report.explore import EXPLORER, check_chemiscope, write_explorer

    target = out or (paths[0] if paths[0].is_dir() else paths[0].parent) / REPORT
    check_target(target, paths)
    if explore:
        check_chemiscope()
        check_target(target.with_name(EXPLORER), paths)
    results = [each for path in paths for each in read_results(path)]
    write_report(results, target)
    size = target.stat().st_size / 1e6
    click.echo(f"{sum(sum(each.totals.values()) for each in results)} structures in {target} "
               f"({size:.1f} MB).")  # fmt: skip
    if explore:
        results = [each for path in paths for each in read_results(path)]  # rows are given once
        num = write_explorer(results, target.with_name(EXPLORER))
        click.echo(f"{num} of them in {target.with_name(EXPLORER)}, by chemiscope.")
    if open_it:
        click.launch(str(target))


def check_target(target: Path, paths: tuple[Path, ...]) -> None:
    """Find a page that cannot be written before the work, not after it.

    Raises:
        ValueError: its folder is missing, it is one itself, it would take the place of what is
            read, or of a file that is no page.
    """
    if not target.absolute().parent.is_dir():
        raise ValueError(f"Cannot write {target}: there is no folder {target.parent}.")
    check_writable(target)
    if target.is_dir():
        raise ValueError(f"Cannot write {target}: it is a folder. Name a file, {target}/page.html.")
    if any(target.resolve() == path.resolve() for path in paths):
        raise ValueError(f"{target} is read. Choose another --out.")
    if target.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"{target} would be no page for a browser. Name it .html.")
