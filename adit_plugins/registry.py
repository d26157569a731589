"""Look up plugins by entry point: relaxers, hulls, data sets, exporters and the other `GROUPS`.

The one file that scans installed distributions, so that a stranger's package joins by declaring an
entry point in a group below, and so that the mechanism can be exchanged in one place.
"""

from collections.abc import Iterator
from configparser import Error as ConfigError
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import entrypoints

GROUPS = ("adit.relaxers", "adit.hulls", "adit.datasets", "adit.dft", "adit.exporters",
          "adit.benchmarks",
          "adit.executors", "adit.trainers")  # fmt: skip

# Third-party module -> extra of adit-plugins that installs it.
EXTRAS = {
    "ase_db_backends": "data",
    "chemiscope": "chemiscope",
    "gpaw": "dft",
    "huggingface_hub": "hub",
    "jobflow": "jobflow",
    "lmdb": "data",
    "matbench_discovery": "matbench-discovery",
    "mp_api": "mp-api",
    "openbabel": "openbabel",
    "parsl": "parsl",
    "torch_sim": "torch-sim",
}


class UnknownPluginError(LookupError):
    """No plugin of that name; the message lists the known ones and the next step."""


class BrokenPluginError(UnknownPluginError):
    """A plugin cannot be loaded by its own fault; the message names it and its package."""


class MissingExtraError(ImportError):
    """A plugin or predicate needs a package that is not installed; the message says which."""


@dataclass(frozen=True)
class Plugin:
    """One entry point and who declares it.

    Attributes:
        group: one of `GROUPS`.
        name: what users write.
        target: the declared object, `"module:attribute"`.
        distribution: name and version of the package, such as `"adit_plugins 0.1.0"`.
    """

    group: str
    name: str
    target: str
    distribution: str

    def load(self) -> Any:
        """Import and return the object.

        Raises:
            MissingExtraError: a package that it imports is missing.
            BrokenPluginError: whatever else goes wrong.
        """
        try:
            entry = entrypoints.EntryPoint.from_string(self.target, self.name)
            return entry.load()
        except ModuleNotFoundError as error:
            if not f"{entry.module_name}.".startswith(f"{error.name}."):
                what = f"{self.group} plugin '{self.name}'"
                raise MissingExtraError(missing_package(what, error)) from error
            reason = f"there is no module '{error.name}'"
            raise BrokenPluginError(self._broken(reason)) from error
        except AttributeError as error:
            reason = f"{self.target} does not exist ({error})"
            raise BrokenPluginError(self._broken(reason)) from error
        except entrypoints.BadEntryPoint as error:
            reason = f"{self.target!r} is not of the form module:attribute"
            raise BrokenPluginError(self._broken(reason)) from error
        except Exception as error:  # a stranger's module may raise anything
            reason = f"{type(error).__name__}: {error}"
            raise BrokenPluginError(self._broken(reason)) from error

    def _broken(self, reason: str) -> str:
        who = self.distribution.split()[0]
        return (
            f"Plugin '{self.name}' of {self.group}, from {self.distribution}, is broken: {reason}. "
            f"Update it, or: pip uninstall {who}"
        )


def names(group: str) -> list[str]:
    """Return the sorted names of the plugins in an entry-point group.

    Args:
        group: one of `GROUPS`.

    Raises:
        UnknownPluginError: if the group is not one of ours.
    """
    return sorted({plugin.name for plugin in plugins(group)})


def load(group: str, name: str) -> Any:
    """Import and return the object behind an entry point; the first of several of one name.

    Args:
        group: one of `GROUPS`.
        name: name of the plugin, e.g. `"chgnet"`.

    Raises:
        UnknownPluginError: if group or name is unknown, or adit-plugins is not installed.
        MissingExtraError: if the plugin is known but a package it imports is missing.
        BrokenPluginError: if the plugin cannot be loaded for another reason.
    """
    known = plugins(group)
    for plugin in known:
        if plugin.name == name:
            return plugin.load()
    raise UnknownPluginError(_unknown(group, name, sorted({each.name for each in known})))


def plugins(group: str) -> list[Plugin]:
    """Return what is registered in a group and by whom, in the order of the Python path.

    Nothing is imported, so a broken plugin is listed like any other.

    Args:
        group: one of `GROUPS`.

    Raises:
        UnknownPluginError: if the group is not one of ours, or a package's list cannot be read.
    """
    if group not in GROUPS:
        message = f"No entry-point group '{group}'. Known: {', '.join(GROUPS)}."
        raise UnknownPluginError(message)
    try:
        return list(_scan(group))
    except (ConfigError, UnicodeDecodeError) as error:
        raise UnknownPluginError(f"The entry points of a package are damaged: {error}") from error


def _scan(group: str) -> Iterator[Plugin]:
    for config, distribution in entrypoints.iter_files_distros():
        if group in config:
            who = " ".join(filter(None, (distribution.name, distribution.version)))
            for name, target in config[group].items():
                yield Plugin(group, name, target, who)


def missing_package(what: str, error: ModuleNotFoundError) -> str:
    """Say which package `what` lacks and the pip command that installs it."""
    module = (error.name or "").split(".")[0]
    extra = EXTRAS.get(module)
    target = f'"adit-plugins[{extra}]"' if extra else (module or "adit-plugins")
    return f"{what} needs the package '{module}'. Install it: pip install {target}"


def _unknown(group: str, name: str, known: list[str]) -> str:
    if not known and not any(plugins(each) for each in GROUPS):
        # Imported from a checkout on sys.path: the code is there, the metadata is not.
        return (
            f"No plugin '{name}' in {group}: adit-plugins is on the path but not installed, so its "
            "entry points are invisible. Run: pip install -e . (in the checkout)."
        )
    extras = sorted({extra for module, extra in EXTRAS.items() if find_spec(module) is None})
    hint = f" Extras not installed: {', '.join(extras)}" if extras else ""
    how = ' (pip install "adit-plugins[NAME]").' if extras else ""
    return f"No plugin '{name}' in {group}. Known: {', '.join(known) or 'none'}.{hint}{how}"
