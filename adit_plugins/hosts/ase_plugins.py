"""Our calculator in ASE's experimental plugin list, `ase._4.plugins`; nothing depends on it.

ASE says that the list is likely to change without warning, and one module that raises would take
the whole list with it: so where it has changed, ours is empty.
"""

from __future__ import annotations

from typing import Any

__ase_plugins__: set[Any] = set()

try:
    from ase._4.plugins.plugin import CalculatorPlugin

    __ase_plugins__.add(
        CalculatorPlugin(
            "adit-chgnet",
            citation="doi:10.1038/s42256-023-00716-3",
            implementation="adit_integrations.chgnet.FastCHGNetCalculator",
        )
    )
except (ImportError, AttributeError, TypeError):  # another ASE
    pass
