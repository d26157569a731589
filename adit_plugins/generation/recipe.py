"""What a generator's recipe names: the network, samples by id, settings in their range."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adit_model import ADiT


PRECISIONS = ("auto", "float32", "bfloat16")

# Samples drawn together, by device, before they are grouped by size. With fewer the groups are so
# small that a core waits for memory, or a GPU for its kernels to be launched.
AT_ONCE = {"cpu": 512, "cuda": 8192}
ENDLESS = 256  # of a stream without end, whose reader may want only the first


@lru_cache(maxsize=2)
def load_model(checkpoint: str | None, device: str | None, last_change: int) -> ADiT:
    from adit_model import ADiT

    check_device(device)
    return ADiT.from_pretrained(checkpoint, device=device)


def last_change(checkpoint: str | None) -> int:
    """When a folder or file was written (ns), so that weights trained anew are loaded anew."""
    if checkpoint is None or not Path(checkpoint).exists():
        return 0
    path = Path(checkpoint)
    files = path.iterdir() if path.is_dir() else [path]
    return max((p.stat().st_mtime_ns for p in files), default=0)


def used_precision(precision: str, model: ADiT) -> str:
    """Which precision `"auto"` stands for on the model's device."""
    from adit_model.precision import faster_precision

    return faster_precision(model.device) if precision == "auto" else precision


def parse_id(text: str) -> tuple[str, int, int]:
    parts = str(text).rsplit("/", 2)
    if len(parts) != 3 or not parts[0] or not (parts[1].isdecimal() and parts[2].isdecimal()):
        raise ValueError(
            f"cannot read the id {text!r}; it has the form checkpoint/seed/index, "
            "such as 'adit-joint/0/17', or there is no such file of ids"
        )
    return parts[0], int(parts[1]), int(parts[2])


def check_sampler(sampler: str) -> None:
    from adit_model.samplers import SAMPLERS

    if sampler not in SAMPLERS:
        raise ValueError(f"Unknown sampler {sampler!r}. Known: {', '.join(SAMPLERS)}.")


def checked_integer(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} is {value!r}; it must be an integer of at least {least}")
    return int(value)


def checked_conditions(conditions: Any) -> dict[str, float | int | None] | None:
    """Values by name as plain numbers, which survive JSON."""
    if conditions is None:
        return None
    if not isinstance(conditions, Mapping):
        raise ValueError(f"conditions must be values by name; got {conditions!r}")
    checked: dict[str, float | int | None] = {}
    for name, value in conditions.items():
        number = isinstance(value, Real) and not isinstance(value, bool)
        if not isinstance(name, str) or not (value is None or number):
            raise ValueError(f"the condition {name!r} must be a number or None; got {value!r}")
        if value is None:
            checked[name] = None
        else:
            checked[name] = int(value) if isinstance(value, Integral) else float(value)
    return checked


def checked_guidance(scales: Any, conditions: Mapping[str, Any] | None) -> dict[str, float] | None:
    """Scales by condition as plain numbers; each of a condition that the recipe tells."""
    if scales is None:
        return None
    from adit_model.sampling import check_condition_guidance

    check_condition_guidance(scales)
    for name in scales:
        if (conditions or {}).get(name) is None:
            told = ", ".join(conditions or {}) or "nothing"
            raise ValueError(f"condition_guidance of {name!r}, but conditions tell {told}")
    return {name: float(scale) for name, scale in scales.items()}


def check_device(device: str | None) -> None:
    """Refuse a device that torch cannot use here.

    Raises:
        ValueError: the name is unknown or there is no such device.
    """
    if device is None:
        return
    import torch

    known = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        known.append("mps")
    try:
        torch.zeros(1, device=device).tolist()  # a "meta" device holds no numbers
    except (RuntimeError, AssertionError) as error:  # torch raises either for a missing backend
        raise ValueError(f"No device {device!r} here. Known: {', '.join(known)}.") from error
