"""Look up plugins by entry point: relaxers, hulls, data sets, DFT engines, exporters.

The one file that scans installed distributions, so that a stranger's package joins by declaring an
entry point in a group below, and so that the mechanism can be exchanged in one place.
"""

from importlib.util import find_spec
from typing import Any

import entrypoints

GROUPS = ("adit.relaxers", "adit.hulls", "adit.datasets", "adit.dft", "adit.exporters")

# Third-party module -> extra of adit-plugins that installs it.
EXTRAS = {
    "gpaw": "dft",
    "huggingface_hub": "hub",
    "jobflow": "jobflow",
    "matbench_discovery": "matbench-discovery",
    "mp_api": "mp-api",
    "openbabel": "openbabel",
    "parsl": "parsl",
    "torch_sim": "torch-sim",
}


class UnknownPluginError(LookupError):
    """No plugin of that name; the message lists the known ones and the next step."""


class MissingExtraError(ImportError):
    """A plugin or predicate needs a package that is not installed; the message says which."""


def names(group: str) -> list[str]:
    """Return the sorted names of the plugins in an entry-point group.

    Args:
        group: one of `GROUPS`.

    Raises:
        UnknownPluginError: if the group is not one of ours.
    """
    return sorted(_entry_points(group))


def load(group: str, name: str) -> Any:
    """Import and return the object behind an entry point.

    Args:
        group: one of `GROUPS`.
        name: name of the plugin, e.g. `"chgnet"`.

    Raises:
        UnknownPluginError: if group or name is unknown, or adit-plugins is not installed.
        MissingExtraError: if the plugin is known but a package it imports is missing.
    """
    known = _entry_points(group)
    if name not in known:
        raise UnknownPluginError(_unknown(group, name, sorted(known)))
    try:
        return known[name].load()
    except ModuleNotFoundError as error:
        raise MissingExtraError(missing_package(f"{group} plugin '{name}'", error)) from error
    except AttributeError as error:
        spec = f"{known[name].module_name}:{known[name].object_name}"
        message = f"Plugin '{name}' of {group} names {spec}, which does not exist: {error}."
        raise UnknownPluginError(message) from error


def missing_package(what: str, error: ModuleNotFoundError) -> str:
    """Say which package `what` lacks and the pip command that installs it."""
    module = (error.name or "").split(".")[0]
    extra = EXTRAS.get(module)
    target = f'"adit-plugins[{extra}]"' if extra else (module or "adit-plugins")
    return f"{what} needs the package '{module}'. Install it: pip install {target}"


def _entry_points(group: str) -> dict[str, entrypoints.EntryPoint]:
    if group not in GROUPS:
        message = f"No entry-point group '{group}'. Known: {', '.join(GROUPS)}."
        raise UnknownPluginError(message)
    return entrypoints.get_group_named(group)


def _unknown(group: str, name: str, known: list[str]) -> str:
    if not known and not any(entrypoints.get_group_named(each) for each in GROUPS):
        # Imported from a checkout on sys.path: the code is there, the metadata is not.
        return (
            f"No plugin '{name}' in {group}: adit-plugins is on the path but not installed, so its "
            "entry points are invisible. Run: pip install -e . (in the checkout)."
        )
    extras = sorted({extra for module, extra in EXTRAS.items() if find_spec(module) is None})
    hint = f" Extras not installed: {', '.join(extras)}" if extras else ""
    how = ' (pip install "adit-plugins[NAME]").' if extras else ""
    return f"No plugin '{name}' in {group}. Known: {', '.join(known) or 'none'}.{hint}{how}"
