"""Names of a package that are loaded on first use, so that entering it costs nothing."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def lazily(package: str, **homes: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return a package's `__getattr__` and `__dir__` (PEP 562).

    Args:
        package: its `__name__`.
        homes: names between spaces by the package's module that has them.
    """
    owners = {name: module for module, names in homes.items() for name in names.split()}

    def load(name: str) -> Any:
        if name not in owners:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{package}.{owners[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *owners})

    return load, names


class _Moved(ModuleType):
    """A module that has the names of another one, which is loaded when the first is asked for."""

    def __init__(self, name: str, home: str) -> None:
        super().__init__(name, f"Moved: `{home}`.")
        self.__spec__ = ModuleSpec(name, None)
        self._home = home

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__all__":  # what the import system looks for
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(self._home), name)

    def __dir__(self) -> list[str]:
        return dir(importlib.import_module(self._home))


def moved(package: str, **homes: str) -> None:
    """Let modules be imported by their former names.

    Args:
        package: that is being imported, by its `__name__`.
        homes: where each is now, by its former name; both within the package.
    """
    for name, home in homes.items():
        module = _Moved(f"{package}.{name}", f"{package}.{home}")
        sys.modules[module.__name__] = module
        setattr(sys.modules[package], name, module)
