"""Matbench Discovery's own data and metrics, whatever of them the installed version has.

The release on PyPI and the repository have the same version number and other modules, so features
are looked for, not versions. Importing `data` or `energy` downloads what is not cached: nothing of
it is imported before it is needed.
"""

from __future__ import annotations

import contextlib
import io
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pandas as pd
from ase import Atoms

from adit_plugins.submissions.shards import MATERIAL_ID


class MatbenchDiscovery:
    """The benchmark `matbench-discovery` of the group `adit.benchmarks`."""

    def initial_structures(self) -> dict[str, Atoms]:
        """Return the WBM initial structures by material id, from its cache or the network.

        Raises:
            ValueError: they are not cached and cannot be downloaded.
        """
        with _contained(), _reachable("the WBM initial structures", "FILE"):
            from matbench_discovery import data

            path = _data_files().wbm_initial_atoms.path
            structures = data.ase_atoms_from_zip(path)
        return {str(atoms.info[MATERIAL_ID]): atoms for atoms in structures}

    def summary(self) -> pd.DataFrame:
        """Return the WBM summary with DFT's energies, by material id.

        Raises:
            ValueError: it is not cached and cannot be downloaded.
        """
        with _contained(), _reachable("the WBM summary", "--summary FILE"):
            from matbench_discovery.data import df_wbm
        return df_wbm

    def references(self) -> Mapping[str, float]:
        """Return its energies of the elements, eV/atom.

        Raises:
            ValueError: they are not cached and cannot be downloaded.
        """
        with _contained(), _reachable("the elements' energies", "--references shipped"):
            from matbench_discovery.energy import mp_elemental_ref_energies
        return dict(mp_elemental_ref_energies)

    def score(self, table: pd.DataFrame) -> dict[str, float]:
        """Return its discovery metrics.

        Args:
            table: energies above hull `true` and `pred`, eV/atom; `pred` may be NaN.

        Raises:
            ValueError: they are not defined, as without any stable material.
        """
        try:
            found = dict(_stable_metrics()(table["true"], table["pred"], fillna=True))
        except (ZeroDivisionError, ValueError) as error:
            raise ValueError(
                "matbench-discovery gives no metrics: it needs stable and unstable materials, by "
                f"DFT and by the model, among the {len(table)} ({error})."
            ) from error
        numbers = {name: float(value) for name, value in found.items()}
        if not all(math.isfinite(value) for value in numbers.values()):
            raise ValueError("matbench-discovery gives metrics that are not finite.")
        return numbers | {"missing_preds": float(table["pred"].isna().sum())}


def _stable_metrics() -> Callable[..., Mapping[str, float]]:
    with _contained():
        try:
            from matbench_discovery.metrics.discovery import stable_metrics  # the repository
        except ImportError:
            from matbench_discovery.metrics import stable_metrics  # the release
    return stable_metrics


def _data_files() -> Any:
    try:
        from matbench_discovery.enums import DataFiles  # the repository
    except ImportError:
        from matbench_discovery.data import DataFiles  # the release
    return DataFiles


@contextlib.contextmanager
def _reachable(what: str, option: str) -> Iterator[None]:
    """Turn its many ways to miss a download into one message.

    On a terminal it would ask whether to download; who calls this has asked for the file.
    """
    terminal, sys.stdin = sys.stdin, io.StringIO()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except ModuleNotFoundError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"matbench-discovery cannot get {what}: {type(error).__name__}: {reason}. Fetch the "
            f"file from figshare.com/articles/dataset/22715158 and pass {option}."
        ) from error
    finally:
        sys.stdin = terminal


@contextlib.contextmanager
def _contained() -> Iterator[None]:
    """Importing it changes the plots of the whole process, and prints: nothing of that remains."""
    import matplotlib as mpl
    import plotly.express as px
    import plotly.io as pio

    before = (pio.templates.default, px.defaults.template, px.defaults.labels)
    with mpl.rc_context(), contextlib.redirect_stdout(io.StringIO()):
        try:
            yield
        finally:
            pio.templates.default, px.defaults.template, px.defaults.labels = before
