"""Data sets of many files: the structures of one, read where they are needed, and trained on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from test_training import TINY, make_data

from adit_model import ADiT
from adit_model.config import Condition
from adit_model.data import PreparedData, SizeGroups
from adit_model.sharded_data import ShardedData, StreamedGroups, load_data, write_index
from adit_model.training.cli import main

GAP = Condition("gap", 1, "number", 0.4, ("crystal",), 0.0, 30.0, "eV")
GROUP = Condition("group", 5, dropout=0.4, kinds=("crystal",))


def labelled(folder: Path) -> PreparedData:
    """Crystals of two sizes, with a number and a class."""
    data = PreparedData.load(Path(make_data(folder)[0]))
    sizes = torch.tensor([2, 4] * 10 + [2] * 10, dtype=torch.int32)
    total = int(sizes.sum())
    generator = torch.Generator().manual_seed(1)
    gap = torch.arange(30.0)
    gap[3] = torch.nan
    return dataclasses.replace(
        data,
        atomic_numbers=torch.randint(1, 90, (total,), generator=generator).to(torch.uint8),
        coords=torch.rand(total, 3, generator=generator),
        num_atoms=sizes,
        labels={"gap": gap, "group": (torch.arange(30) % 5 + 1).float()},
        conditions=(GAP, GROUP),
    )


def in_files(data: PreparedData, folder: Path, number: int) -> Path:
    """The structures of a data set dealt out to files; the last has no `group`."""
    folder.mkdir()
    ends = torch.cumsum(data.num_atoms.long(), 0)
    names = []
    for i in range(number):
        rows = torch.arange(i * 30 // number, (i + 1) * 30 // number)
        first = int(ends[rows[0]] - data.num_atoms[rows[0]])
        atoms = slice(first, int(ends[rows[-1]]))
        labels = {k: v[rows] for k, v in data.labels.items() if k != "group" or i < number - 1}
        names.append(f"shard-{i:06d}.safetensors")
        assert data.coords is not None
        dataclasses.replace(
            data,
            atomic_numbers=data.atomic_numbers[atoms],
            coords=data.coords[atoms],
            num_atoms=data.num_atoms[rows],
            split=data.split[rows],
            cell=None if data.cell is None else data.cell[rows],
            labels=labels,
            conditions=(),
        ).save(folder / names[-1])
    write_index(folder, data.name, data.kind, data.source, data.conditions, names)
    return folder


def test_files_give_the_structures_and_labels_of_one(tmp_path: Path) -> None:
    data = labelled(tmp_path)
    folder = in_files(data, tmp_path / "set", 4)
    many = load_data(folder)
    assert isinstance(many, ShardedData)
    assert many.size_histogram() == data.size_histogram()
    here, streamed = SizeGroups(data, "train", "cpu"), StreamedGroups(many, "train", "cpu")
    assert len(streamed) == len(here) == 27
    told = (Condition("kind", 2), GAP, GROUP, Condition("elements", 99, "atom_class"))
    for size in (2, 4):
        rows = torch.randperm(streamed.number(size))
        a, b = here.batch(size, rows), streamed.batch(size, rows)
        for name in ("atomic_numbers", "frac_coords", "positions", "lattice", "periodic", "mask"):
            torch.testing.assert_close(getattr(a, name), getattr(b, name))
        expected, found = (g.labels(size, rows, told) for g in (here, streamed))
        known = rows[expected["gap"].nan_to_num(0) < 22]  # the last file has no groups
        assert found.keys() == expected.keys()
        for name in ("kind", "gap", "elements"):
            torch.testing.assert_close(found[name], expected[name], equal_nan=True)
        assert found["group"].dtype == torch.long and len(known)
        differ = found["group"] != expected["group"]
        assert (found["group"][differ] == 0).all()
        assert (expected["gap"][differ].nan_to_num(99) >= 22).all()
    assert streamed.batches(16) == here.batches(16)
    chosen = {int(r) for i in range(40) for r in streamed.choose(40, torch.Generator(), i / 40)[1]}
    assert len(chosen) > 10
    first, again = (streamed.choose(64, torch.Generator(), 0.37)[1] for _ in range(2))
    assert torch.equal(first, again)  # all of a step comes from its seed
    compositions = many.compositions()
    assert torch.equal(compositions.atomic_numbers, data.atomic_numbers)


def test_all_stages_train_on_files(tmp_path: Path) -> None:
    paths = make_data(tmp_path)
    data = PreparedData.load(Path(paths[0]))
    folder = str(in_files(data, tmp_path / "set", 3))
    common = ["--data", folder, paths[1], "--steps", "2", *TINY]
    one, two, three = (str(tmp_path / name) for name in ("one", "two", "three"))
    assert main(["autoencoder", *common, "--out", one]) == 0
    first = ["--autoencoder", f"{one}/model", "--latents", "mean"]
    assert main(["denoiser", *common, *first, "--out", two]) == 0
    prior = ["--tokens", "64", "--threads", "1", "--device", "cpu"]
    rest = ["--data", folder, paths[1], "--steps", "1", *prior]
    assert main(["prior", *rest, "--init", f"{two}/model", "--out", three]) == 0
    model = ADiT.from_pretrained(f"{three}/model", device="cpu")
    assert model.config.provenance["denoiser"]["data"][0]["structures"] == 30
    assert model.config.size_histogram["crystal"] == [0, 0, 27]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "dataset.json").unlink(), "it is not complete"),
        (lambda folder: (folder / "shard-000001.safetensors").unlink(), "shard-000001"),
        (lambda folder: (folder / "dataset.json").write_text("{"), "no data set in files"),
        (
            lambda folder: (folder / "dataset.json").write_text(
                json.dumps({"name": "x", "kind": "molecule", "source": "", "conditions": [],
                            "shards": ["shard-000000.safetensors"]})
            ),
            "kinds",
        ),
    ],
)  # fmt: skip
def test_a_damaged_folder_is_told(tmp_path: Path, change: object, words: str) -> None:
    folder = in_files(labelled(tmp_path), tmp_path / "set", 3)
    change(folder)  # type: ignore[operator]
    with pytest.raises(ValueError, match=words):
        load_data(folder)
