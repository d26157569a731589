"""The command `adit`: one module a command; nothing heavy is imported before a command runs.

Add a command as a module, named in `app`; options that several commands take are in `options`.
"""

from adit_plugins.cli.app import main

__all__ = ["main"]
