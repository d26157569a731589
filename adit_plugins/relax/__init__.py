"""A potential in, a `RelaxResult` out.

Add a potential in a package of your own or in `adit_integrations`, by the entry point
`adit.relaxers`: an `AseRelaxer`, or anything that is a `Relaxer`. Add what a result says in
`results`; an environment of its own for a potential that fits beside nothing in `environments`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adit_plugins.lazy import lazily

if TYPE_CHECKING:
    from adit_plugins.relax.ase_relaxer import AseRelaxer
    from adit_plugins.relax.elsewhere import RemoteCalculator
    from adit_plugins.relax.results import CONVENTIONS, RelaxResult
    from adit_plugins.relax.run import Relaxer, RelaxerError, find_relaxer, load_relaxer, relax

__all__ = [
    "CONVENTIONS",
    "AseRelaxer",
    "RelaxResult",
    "Relaxer",
    "RelaxerError",
    "RemoteCalculator",
    "find_relaxer",
    "load_relaxer",
    "relax",
]

__getattr__, __dir__ = lazily(
    __name__,
    ase_relaxer="AseRelaxer",
    elsewhere="RemoteCalculator",
    results="CONVENTIONS RelaxResult",
    run="Relaxer RelaxerError find_relaxer load_relaxer relax",
)
