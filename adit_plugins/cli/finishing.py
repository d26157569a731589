"""How a run ends on the command line: its files and tables, and what is said of a campaign."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from adit_plugins.campaign.settings import INTERRUPTED, MINUTES
from adit_plugins.cli.progress import progress

if TYPE_CHECKING:
    from adit_plugins.campaign import Campaign, Store


def run(campaign: Campaign) -> None:
    """Run a campaign, write its files and print its tables.

    Raises:
        RelaxerError: the potential cannot be loaded, or no worker can start.
        StoreError: the store cannot be written any more.
        ValueError: the model cannot follow the recipe.
    """
    try:
        with progress() as report, warnings.catch_warnings():
            # pymatgen says it for every noble gas; the composition check knows what to do with NaN.
            warnings.filterwarnings("ignore", message="No Pauling electronegativity")
            campaign.run(report)
    except Exception:
        if len(campaign.store):  # hours of work may precede a late failure
            campaign.ended = INTERRUPTED
            finish(campaign)
        raise
    finish(campaign)


def finish(campaign: Campaign) -> None:
    """Write the files and print the tables."""
    from rich.console import Console

    from adit_plugins.campaign.files import write_files
    from adit_plugins.campaign.report import print_tables
    from adit_plugins.report import REPORT, write_campaign_report

    num, folder = len(campaign.store), campaign.folder
    go_on = f"adit discover --resume {folder} goes on."
    with no_interruption():
        write_files(campaign.store, campaign.ended, campaign.seconds)
        if num:
            write_campaign_report(campaign.store)
    if campaign.interrupted and not num:
        click.echo(f"Interrupted: nothing was finished; {go_on}", err=True)
        return
    print_tables(campaign.store, Console())
    if campaign.interrupted:
        waiting = num - campaign.store.num_judged()
        said = f", {waiting} of them not judged yet" if waiting else ""
        click.echo(f"Interrupted: {num} structures are in {folder}/{said}; {go_on}", err=True)
    else:
        page = f"; look at them in {folder}/{REPORT}" if num else ""
        click.echo(f"{num} structures in {folder}/ ({campaign.seconds:.0f} s){page}.")
    if campaign.ended == MINUTES:
        click.echo(_time_note(campaign))
    note = campaign.store.found_note()
    if note:
        click.echo(note)


def _time_note(campaign: Campaign) -> str:
    """What was reached when the time was up, and how to go on."""
    store, minutes = campaign.store, campaign.resources.minutes
    waiting = len(store) - store.num_judged()
    wait = f", {waiting} wait to be relaxed" if waiting else ""
    most = "at most " if "generators" in store.metadata["recipe"] else ""
    of = f"{store.num_judged()} of {most}{campaign.total}"
    return (
        f"Ended by --minutes {minutes:g}: {of} structures have their verdict{wait}. "
        f"More time: adit discover --resume {campaign.folder} --minutes {minutes:g}."
    )


@contextmanager
def no_interruption() -> Iterator[None]:
    """A second Ctrl-C waits until the files are complete (a second or two)."""
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def why_nothing_is_relaxed(store: Store) -> str:
    """Return what the first relaxation said where all have failed; empty where one has not."""
    if store.count("relaxed", 1.0) or not store.count("relaxed", 0.0):
        return ""
    for row in store.rows("crystal"):
        if row.get("relaxed") == 0:
            return str(row.data["relaxation"]["reason"])
    return ""
