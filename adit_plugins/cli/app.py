"""The group of commands, and how every expected failure becomes one line."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from adit_model.outputs import said
from adit_plugins._version import __version__
from adit_plugins.cli.complete import complete
from adit_plugins.cli.convert import convert
from adit_plugins.cli.data import data
from adit_plugins.cli.dft import dft
from adit_plugins.cli.discover import discover
from adit_plugins.cli.doctor import doctor
from adit_plugins.cli.env import env
from adit_plugins.cli.evaluate import evaluate
from adit_plugins.cli.generate import generate
from adit_plugins.cli.hull import hull
from adit_plugins.cli.improve import improve
from adit_plugins.cli.merge import merge
from adit_plugins.cli.predict import predict
from adit_plugins.cli.relax import relax
from adit_plugins.cli.relaxer import relaxer
from adit_plugins.cli.report import report
from adit_plugins.cli.submit import submit
from adit_plugins.cli.train import train

USER_ERROR = 2
INTERRUPTED = 130  # the shell's exit status for Ctrl-C


class OneLineErrors(click.Group):
    """A group that reports users' mistakes as `Error: ...` without usage text or traceback.

    Anything unexpected keeps its traceback: it is a bug, and the traceback is the report.
    """

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command and leave with its exit status."""
        # Before torch is loaded: its threads spin 300,000 times while they wait for each other,
        # which makes sampling several times slower beside other programs; none at all costs alone.
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, **extra)
        try:
            with _sigterm_as_ctrl_c(), _notices_in_one_line():
                status = super().main(args, prog_name, complete_var, False, **extra)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message())
            status = 0
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx is not None else "adit"
            _fail(f"{error.format_message()} See: {command} --help")
        except click.ClickException as error:
            _fail(error.format_message())
        except click.Abort:
            click.echo("Interrupted.", err=True)
            status = INTERRUPTED
        except Exception as error:
            if not isinstance(error, _expected_errors()):
                raise
            _fail(said(error))
        sys.exit(status if isinstance(status, int) else 0)


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """A scheduler's SIGTERM ends a command as Ctrl-C does: with what was finished."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def _notices_in_one_line() -> Iterator[None]:
    """What a user must know of a checkpoint or file is a line on stderr, without code."""
    usual = warnings.formatwarning

    def one_line(message: Any, category: type[Warning], *place: Any, **more: Any) -> str:
        # By name: importing the class would import torch before any command is chosen.
        if category.__name__ in ("CheckpointNotice", "ReadingNotice"):
            return f"Note: {message}\n"
        return usual(message, category, *place, **more)

    warnings.formatwarning = one_line
    try:
        yield
    finally:
        warnings.formatwarning = usual


def _fail(message: str) -> NoReturn:
    click.echo(f"Error: {' '.join(message.split())}", err=True)
    sys.exit(USER_ERROR)


def _expected_errors() -> tuple[type[Exception], ...]:
    """What library calls raise for bad input; imported only once something has failed."""
    from adit_plugins.registry import MissingExtraError, UnknownPluginError
    from adit_plugins.relax.run import RelaxerError

    return (ValueError, OSError, MissingExtraError, UnknownPluginError, RelaxerError)


@click.group("adit", cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="adit")
@click.option("-v", "--verbose", count=True, help="Log on stderr what is done; -vv for more.")
def main(verbose: int) -> None:
    """Generate crystals and molecules with the All-atom Diffusion Transformer, and screen them."""
    if verbose:
        start_logging(verbose)


def start_logging(verbose: int) -> None:
    """Print on stderr what this package logs: 1 for what is done, 2 for every step of it."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    log = logging.getLogger("adit_plugins")
    log.handlers = [each for each in log.handlers if isinstance(each, logging.NullHandler)]
    log.addHandler(handler)
    log.setLevel(logging.INFO if verbose == 1 else logging.DEBUG)


for command in (
    discover, report, merge, dft, generate, predict, complete, relax, hull, evaluate, submit, data,
    train, improve, convert, relaxer, env, doctor,
):  # fmt: skip
    main.add_command(command)
