"""`python -m adit_plugins.cli`, for where the script `adit` is not on the PATH."""

from adit_plugins.cli import main

main(prog_name="adit")
