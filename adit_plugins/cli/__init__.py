"""The command `adit`: one module a command; nothing heavy is imported before a command runs."""

from adit_plugins.cli.app import main

__all__ = ["main"]
