"""Checkpoint files that mean harm or are broken: a clear error, nothing run, little memory."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import published_reference as reference
import pytest
import torch

from adit_model import ADiT
from adit_model.checkpoints.folder import CheckpointError
from adit_model.checkpoints.restricted_pickle import INERT, rebuild

pytestmark = pytest.mark.filterwarnings(
    "ignore::adit_model.checkpoints.pretrained.CheckpointNotice"
)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Runs:
    """Unpickling it would run a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def load_in_little_memory(path: Path) -> None:
    """Load, and fail if more than 100 MB of Python's memory was needed at any time."""
    tracemalloc.start()
    try:
        ADiT.from_pretrained(path)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 100e6


def zipped(path: Path, program: bytes, members: dict[str, bytes] | None = None, **how: Any) -> Path:
    with zipfile.ZipFile(path, "w", **how) as file:
        file.writestr("archive/data.pkl", program)
        for name, data in (members or {}).items():
            file.writestr(f"archive/data/{name}", data)
    return path


def test_nothing_in_a_file_is_run(tmp_path: Path, toy_weights: dict[str, np.ndarray]) -> None:
    canary = tmp_path / "was-here"
    state: dict[str, Any] = {k: torch.from_numpy(v) for k, v in toy_weights.items()}
    state["autoencoder.extra"] = Runs(f"touch {canary}")
    content = {"hyper_parameters": Runs(f"touch {canary}"), "state_dict": state}
    torch.save(content, tmp_path / "hostile.ckpt")
    loaded = ADiT.from_pretrained(tmp_path / "hostile.ckpt", device="cpu")
    assert loaded.config.denoiser.depth == 2
    assert not canary.exists()
    torch.load(tmp_path / "hostile.ckpt", weights_only=False)  # runs where that is allowed
    assert canary.exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cposix\nsystem\n(S'touch CANARY'\ntR.",
        b"(S'touch CANARY'\niposix\nsystem\n.",
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x0ctouch CANARY\x85R.",
        b"(cposix\nsystem\nS'touch CANARY'\no.",
        b"\x80\x02cposix\nsystem\nS'touch CANARY'\n\x85\x81.",
    ],
)
def test_every_way_to_call_gives_the_placeholder(
    program: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert rebuild(program) is INERT
    assert names_in(tmp_path) == []
    path = zipped(tmp_path / "x.ckpt", program)
    with pytest.raises(CheckpointError, match="no dictionary"):
        ADiT.from_pretrained(path)
    assert names_in(tmp_path) == ["x.ckpt"]


def hostile_programs() -> dict[str, tuple[bytes, str]]:
    nested = b"\x80\x02}" + b")" + b"2\x86" * 60 + b"K\x01s."  # a key whose hash takes for ever
    huge_memo = b"\x80\x02}r\xff\xff\xff\x7f."
    return {
        "endless": (b"\x80\x02}" + b"N0" * 600_000 + b".", "opcodes"),
        "hash": (nested, "no state_dict"),
        "memo": (huge_memo, "no state_dict"),
        "bytes": (b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b"x.", "damaged pickle"),
        "stack": (b"\x80\x02\x87.", "damaged pickle"),
        "cut": (b"\x80\x02}", "damaged pickle"),
        "text": (b"hello", "damaged pickle"),
        "storage": (b"\x80\x02}U\x01aQ.", "damaged pickle"),
    }


@pytest.mark.parametrize("name", hostile_programs())
def test_a_program_that_means_harm(tmp_path: Path, name: str) -> None:
    program, words = hostile_programs()[name]
    with pytest.raises(CheckpointError, match=words):
        load_in_little_memory(zipped(tmp_path / "x.ckpt", program))


def test_zip_bombs_and_broken_zips(tmp_path: Path, toy_file: Path) -> None:
    bomb = zipped(tmp_path / "a.ckpt", b"}" * 40_000_000, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="more than the"):
        load_in_little_memory(bomb)
    whole = toy_file.read_bytes()
    for length in (3, 100, len(whole) // 2, len(whole) - 10):
        (tmp_path / "b.ckpt").write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"b\.ckpt is (cut short|no PyTorch)"):
            ADiT.from_pretrained(tmp_path / "b.ckpt")
    with zipfile.ZipFile(toy_file) as old, zipfile.ZipFile(tmp_path / "c.ckpt", "w", 8) as new:
        for member in old.namelist():
            new.writestr(member, old.read(member))
    with pytest.raises(CheckpointError, match="compressed"):
        load_in_little_memory(tmp_path / "c.ckpt")
    place = whole.index(whole[len(whole) // 2 :][:64])
    (tmp_path / "d.ckpt").write_bytes(whole[:place] + bytes(64) + whole[place + 64 :])
    with pytest.raises(CheckpointError, match="damaged"):
        ADiT.from_pretrained(tmp_path / "d.ckpt")
    for content, words in (
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!doctype html>", "no PyTorch Lightning"),
        (b"", "no PyTorch Lightning"),
    ):
        (tmp_path / "e.ckpt").write_bytes(content)
        with pytest.raises(CheckpointError, match=words):
            ADiT.from_pretrained(tmp_path / "e.ckpt")
    with zipfile.ZipFile(tmp_path / "f.ckpt", "w") as file:
        file.writestr("readme.txt", "hello")
    with pytest.raises(CheckpointError, match="without a PyTorch checkpoint"):
        ADiT.from_pretrained(tmp_path / "f.ckpt")


def edited(weights: dict[str, np.ndarray], path: Path, **changes: Any) -> Path:
    """Write weights with some names replaced (None: removed); dots are written as double _."""
    state = {name: torch.from_numpy(value) for name, value in weights.items()}
    for name, value in changes.items():
        name = name.replace("__", ".")
        state.pop(name, None) if value is None else state.update({name: value})
    torch.save({"state_dict": state}, path)
    return path


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"autoencoder__quant_conv__weight": None}, ["1 weights are missing", "quant_conv"]),
        ({"denoiser__blocks__1__mlp__fc2__bias": None}, ["missing", "blocks.1.mlp.fc2.bias"]),
        ({"denoiser__x_embedder__weight": None}, ["denoiser.x_embedder.weight is missing"]),
        ({"denoiser__x_embedder__bias": torch.zeros(7)}, ["(7,) instead of (192,)"]),
        ({"denoiser__x_embedder__bias": torch.zeros(192).long()}, ["torch.int64", "not floats"]),
        ({"denoiser__x_embedder__bias": torch.full((192,), float("nan"))}, ["not finite"]),
        ({"denoiser__x_embedder__bias": "text"}, ["missing", "x_embedder.bias"]),
        ({"denoiser__blocks__9__mlp__fc2__bias": torch.zeros(192)}, ["missing", "blocks.2."]),
        (
            {"denoiser__x_embedder__weight": torch.zeros(1).expand(10**6, 10**6)},
            ["mlp_ratio"],
        ),
        ({"denoiser__dataset_embedder__embedding_table__weight": torch.zeros(9, 192)}, ["kind"]),
    ],
)
def test_wrong_weights_are_named(
    toy_weights: dict[str, np.ndarray], tmp_path: Path, changes: dict[str, Any], words: list[str]
) -> None:
    path = edited(toy_weights, tmp_path / "x.ckpt", **changes)
    with pytest.raises(CheckpointError) as caught:
        load_in_little_memory(path)
    assert any(word in str(caught.value) for word in words), caught.value


def test_weights_that_share_one_small_storage_are_refused(tmp_path: Path) -> None:
    """Gigabytes of weights out of one kilobyte."""
    one = torch.zeros(1)
    state = {
        name: one.expand(shape)
        for name, shape in reference.shapes(d=512, layers=8, dit=1024, blocks=24, ff=2048).items()
    }
    torch.save({"state_dict": state}, tmp_path / "x.ckpt")
    assert (tmp_path / "x.ckpt").stat().st_size < 1e6
    with pytest.raises(CheckpointError, match="claim"):
        load_in_little_memory(tmp_path / "x.ckpt")


def test_half_precision_weights_load_as_float32(
    toy_weights: dict[str, np.ndarray], tmp_path: Path
) -> None:
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        state = {name: torch.from_numpy(value).to(dtype) for name, value in toy_weights.items()}
        torch.save({"state_dict": state}, tmp_path / "x.ckpt")
        loaded = ADiT.from_pretrained(tmp_path / "x.ckpt", device="cpu").state_dict()
        expected = state["autoencoder.quant_conv.weight"].float()
        assert torch.equal(loaded["autoencoder.quant_conv.weight"], expected)


def test_views_are_read_as_they_were_seen(
    toy_weights: dict[str, np.ndarray], tmp_path: Path, toy_file: Path
) -> None:
    name = "autoencoder.quant_conv.weight"
    inside = torch.zeros(40, 200)
    inside[3:19, 10:138] = torch.from_numpy(toy_weights[name])
    view = {name.replace(".", "__"): inside[3:19, 10:138]}
    loaded = ADiT.from_pretrained(edited(toy_weights, tmp_path / "x.ckpt", **view), device="cpu")
    assert torch.equal(
        loaded.state_dict()[name], ADiT.from_pretrained(toy_file, device="cpu").state_dict()[name]
    )


def test_mutated_files_give_one_kind_of_error(toy_file: Path, tmp_path: Path) -> None:
    """Bytes changed at random in the pickle and in the zip's own records."""
    random = np.random.default_rng(0)
    with zipfile.ZipFile(toy_file) as file:
        info = next(i for i in file.infolist() if i.filename.endswith("data.pkl"))
        program = file.read(info)
    for _ in range(60):
        changed = bytearray(program)
        for place in random.integers(0, len(changed), 3):
            changed[place] = random.integers(0, 256)
        path = zipped(tmp_path / "x.ckpt", bytes(changed))
        with pytest.raises(CheckpointError):  # at the latest for the storages, which are left out
            ADiT.from_pretrained(path)
    whole = toy_file.read_bytes()
    tail = len(whole) - 6000
    for _ in range(20):
        changed = bytearray(whole)
        for place in random.integers(tail, len(whole), 4):
            changed[place] = random.integers(0, 256)
        (tmp_path / "y.ckpt").write_bytes(changed)
        with contextlib.suppress(CheckpointError):  # a changed time stamp does no harm
            ADiT.from_pretrained(tmp_path / "y.ckpt")


def test_reading_a_pickle_of_plain_things() -> None:
    plain = {"a": [1, 2.5, None, True, (1, (2, 3, 4, 5))], "b": {3: b"x"}, "c": 2**70, "d": "é"}
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        written = io.BytesIO()
        pickle.Pickler(written, protocol).dump(plain)
        found = rebuild(written.getvalue())
        assert {k: v for k, v in found.items() if k != "b"} == {
            k: v for k, v in plain.items() if k != "b"
        }
