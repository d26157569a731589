"""The `mace` relaxers: MACE (Batatia et al. 2022, arXiv:2206.07697) foundation models and files.

mace-torch carries no weights: `mace-mpa-0` and the other names need a cached file or a download,
`mace:PATH` neither. Energies are raw PBE(+U), so the Materials Project's corrections are added
where they meet the hull.
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from adit_plugins.relax.ase_relaxer import AseRelaxer
from adit_plugins.relax.results import MP_RAW

NO_WEIGHTS_ONLY = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"

# eV/atom, raw: as for CHGNet, outside lies extrapolation.
ENERGY_BOUNDS = (-18.0, 10.0)

# Trained with the Materials Project's settings (MPtrj, sAlex). The others (OMat24, MatPES) use
# newer pseudopotentials or no U, and their energies have no place on its hull.
MP_MODELS = ("small", "medium", "large", "small-0b", "medium-0b", "small-0b2", "medium-0b2",
             "large-0b2", "medium-0b3", "medium-mpa-0")  # fmt: skip


@contextlib.contextmanager
def contained() -> Iterator[None]:
    """Import and load MACE here: nothing of what it does to torch and to stdout remains.

    Importing it sets a variable with which torch.load runs any code of any file, for the whole
    process and its children. Its own files need that, so take them from people you trust.
    """
    before = os.environ.get(NO_WEIGHTS_ONLY)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            os.environ[NO_WEIGHTS_ONLY] = "1"
            yield
        finally:
            if before is None:
                os.environ.pop(NO_WEIGHTS_ONLY, None)
            else:
                os.environ[NO_WEIGHTS_ONLY] = before


def make_relaxer(
    model: str = "medium-mpa-0", max_seconds: float = 60.0, device: str | None = None
) -> AseRelaxer:
    """Load a MACE model as a relaxer of crystals and molecules.

    Args:
        model: a name that `mace_mp` knows, such as `medium-mpa-0`, or the path of a model file.
        max_seconds: wall-clock limit a structure.
        device: `"cpu"`, `"cuda"`; None takes CUDA if there is one.

    Raises:
        ValueError: unknown name, unreadable file, or no network for a model that is not cached.
    """
    path = model_path(model)
    with contained():
        from mace.calculators import MACECalculator

        try:
            calculator = MACECalculator(
                model_paths=str(path), device=_device(device), default_dtype="float64"
            )
        except Exception as error:
            raise ValueError(f"'{model}' is no MACE model: {error}") from error
    return AseRelaxer(
        name=relaxer_name(model),
        calculator=calculator,
        max_seconds=max_seconds,
        energy_bounds=ENERGY_BOUNDS,
        convention=convention(model),
        elements=frozenset(map(int, calculator.z_table.zs)),
    )


def make_mpa_0() -> AseRelaxer:
    """Load MACE-MPA-0, the most accurate of the MACE models on the Materials Project's scale."""
    return make_relaxer("medium-mpa-0")


def load_network(model: str, device: str | None = None) -> torch.nn.Module:
    """Load the bare network, for batched use.

    Raises:
        ValueError: as for `make_relaxer`.
    """
    path = model_path(model)
    with contained():
        import mace  # noqa: F401 - before e3nn, which alone fails under torch >= 2.6

        try:
            network: Any = torch.load(path, map_location=_device(device), weights_only=False)
        except Exception as error:
            raise ValueError(f"'{model}' is no MACE model: {error}") from error
    if not isinstance(network, torch.nn.Module):
        raise ValueError(f"'{model}' is no MACE model: it holds a {type(network).__name__}.")
    return network


def model_path(model: str) -> Path:
    """Return the file of a model, downloading a named one that is not cached.

    Raises:
        ValueError: there is no such name or file, or no network.
    """
    path = Path(model).expanduser()
    if path.is_file():
        return path
    with contained():
        from mace.calculators.foundations_models import (
            download_mace_mp_checkpoint,
            mace_mp_names,
        )

        names = [name for name in mace_mp_names if name]
        if model not in names:
            raise ValueError(f"No MACE model or file '{model}'. Known: {', '.join(names)}.")
        try:
            return Path(download_mace_mp_checkpoint(model))
        except Exception as error:
            raise ValueError(
                f"MACE model '{model}' is not in the cache (~/.cache/mace) and cannot be "
                f"downloaded: {error}. Fetch the file from github.com/ACEsuit/mace-foundations "
                "and give mace:PATH, or take chgnet, which needs no download."
            ) from error


def convention(model: str) -> str:
    """Return the energy convention of a model; a file is trusted to be on MP's raw scale."""
    return MP_RAW if model in MP_MODELS or Path(model).expanduser().is_file() else ""


def relaxer_name(model: str) -> str:
    """Return what results call a model."""
    return f"mace-{Path(model).stem}" if Path(model).suffix else f"mace-{model}"


def _device(device: str | None) -> str:
    return device or ("cuda" if torch.cuda.is_available() else "cpu")
