"""The prior over elements: its likelihood, its draws, and that no draw breaks a constraint."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from test_training import TINY, make_data

from adit_model import ADiT
from adit_model.compositions import Constraints, draw_elements
from adit_model.config import KINDS, Condition, PriorConfig
from adit_model.data import PreparedData
from adit_model.prior import Prior
from adit_model.training.cli import main
from adit_model.training.settings import TrainingError
from adit_model.training.stages import widened

SIZES = [0, 3, 4, 5, 6, 7, 8, 0, 2]  # histogram: no structure has seven atoms


def prior(**options: object) -> Prior:
    """A small prior with random weights, so that every choice is about as likely."""
    torch.manual_seed(0)
    config = {"width": 32, "depth": 2, "num_heads": 2, "max_atoms": 8, "num_elements": 12}
    return Prior(PriorConfig(**(config | options))).eval()  # type: ignore[arg-type]


def streams(num: int, seed: int = 0) -> list[list[int]]:
    return [[seed, i] for i in range(num)]


def test_probabilities_of_all_compositions_sum_to_one() -> None:
    net = prior(max_atoms=3, num_elements=2, hydrogens_last=False)
    crystals = [
        sorted(each)
        for size in (1, 2, 3)
        for each in itertools.combinations_with_replacement((1, 2), size)
    ]
    molecules = [list(m) for size in (1, 2, 3) for m in itertools.product((1, 2), repeat=size)]
    for kind, every in (("crystal", crystals), ("molecule", molecules)):
        padded = torch.tensor([each + [0] * (3 - len(each)) for each in every])
        total = float(net.log_probability(kind, padded).detach().exp().sum())
        assert total == pytest.approx(1.0, abs=1e-5)
    alone = net.log_probability("molecule", torch.tensor([[1, 2]]))
    among = net.log_probability("molecule", torch.tensor([[1, 2, 0], [2, 2, 2]]))
    torch.testing.assert_close(among[:1], alone)


@pytest.mark.parametrize("kind", KINDS)
def test_draws_follow_the_likelihood(kind: str) -> None:
    net = prior(max_atoms=2, num_elements=3)
    drawn = draw_elements(net, kind, streams(4000), [0, 1, 1])
    counts = Counter(map(tuple, drawn))
    for numbers, count in counts.items():
        row = torch.tensor([list(numbers) + [0] * (2 - len(numbers))])
        chance = float(net.log_probability(kind, row).detach().exp())
        error = math.sqrt(chance * (1 - chance) / 4000)
        assert abs(count / 4000 - chance) < 4.5 * error


def test_a_draw_is_its_own_whatever_is_drawn_beside_it() -> None:
    net = prior()
    every = draw_elements(net, "crystal", streams(300), SIZES)
    assert draw_elements(net, "crystal", streams(300)[270:], SIZES) == every[270:]
    assert draw_elements(net, "crystal", streams(300)[::7], SIZES) == every[::7]
    assert len({tuple(each) for each in every}) > 150


@pytest.mark.parametrize("hydrogens_last", [True, False])
def test_molecules_have_an_even_number_of_electrons_where_the_data_have(
    hydrogens_last: bool,
) -> None:
    sizes = [0, 0, 4, 4, 4, 4, 4, 4, 4]
    free = prior(hydrogens_last=hydrogens_last)
    even = prior(hydrogens_last=hydrogens_last, even_electrons=True)
    assert any(sum(each) % 2 for each in draw_elements(free, "molecule", streams(300), sizes))
    drawn = draw_elements(even, "molecule", streams(300), sizes)
    assert not any(sum(each) % 2 for each in drawn)
    assert {len(each) for each in drawn} == set(range(2, 9))
    # A request decides: nitric oxide has 15 electrons.
    wanted = Constraints(formula={7: 1, 8: 1})
    for each in draw_elements(even, "molecule", streams(5), sizes, constraints=wanted):
        assert sorted(each) == [7, 8]


REQUESTS = [
    Constraints(),
    Constraints(allowed=frozenset({3, 8})),
    Constraints(required=frozenset({3, 8, 12})),
    Constraints(allowed=frozenset({1, 6, 8}), required=frozenset({1, 6, 8})),
    Constraints(allowed=frozenset(range(1, 13)) - {1, 2}, required=frozenset({12})),
    Constraints(formula={3: 1, 8: 2}),
    Constraints(least={3: 2, 8: 1}, most={3: 2}),
    Constraints(least={1: 1, 6: 3}, most={1: 2, 6: 3, 8: 1, 11: 1}),
    Constraints(least={7: 2}, allowed=frozenset({1, 7}), num_atoms=frozenset({3, 5})),
    Constraints(required=frozenset({12}), most=dict.fromkeys(range(2, 12), 1)),
    Constraints(formula={1: 4, 6: 1}),
    Constraints(allowed=frozenset({1})),
    Constraints(required=frozenset({3, 8}), num_elements=3),
    Constraints(required=frozenset({12}), num_elements=2),
    Constraints(num_elements=1),
    Constraints(required=frozenset({1}), num_elements=2),
    Constraints(allowed=frozenset({1, 6}), required=frozenset({6}), num_elements=2),
    Constraints(allowed=frozenset({2, 7, 12}), least={7: 2}, num_elements=3),
    Constraints(most=dict.fromkeys(range(1, 12), 2), required=frozenset({5}), num_elements=4),
]


def holds(numbers: list[int], constraints: Constraints, kind: str) -> bool:
    counts = Counter(numbers)
    good = set(counts) >= constraints.required
    good = good and all(counts[z] >= n for z, n in constraints.least.items())
    good = good and all(counts[z] <= n for z, n in constraints.most.items())
    if constraints.num_elements is not None:
        good = good and len(counts) == constraints.num_elements
    if constraints.num_atoms is not None:
        good = good and len(numbers) in constraints.num_atoms
    if constraints.allowed is not None:
        good = good and set(counts) <= constraints.allowed
    if constraints.formula:
        times = {z: counts[z] / n for z, n in constraints.formula.items()}
        whole = set(times.values()) == {round(next(iter(times.values())))}
        good = good and set(counts) == set(constraints.formula) and whole
        good = good and (kind == "crystal" or next(iter(times.values())) == 1)
    if kind == "crystal":
        return good and numbers == sorted(numbers)
    return good and sorted(numbers, key=lambda z: z == 1) == numbers


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "num", [300, pytest.param(100_000 // len(REQUESTS) // 2 + 1, marks=pytest.mark.slow)]
)
def test_no_draw_breaks_a_constraint(kind: str, num: int) -> None:
    net = prior()
    for number, constraints in enumerate(REQUESTS):
        drawn = draw_elements(net, kind, streams(num, number), SIZES, constraints=constraints)
        assert len(drawn) == num
        for numbers in drawn:
            assert SIZES[len(numbers)] > 0
            assert holds(numbers, constraints, kind), (numbers, constraints)
        size = 6 if constraints.formula != {1: 4, 6: 1} else 5
        if kind == "molecule" and constraints.formula:
            size = sum(constraints.formula.values())
        size = 5 if constraints.num_atoms else size
        fixed = draw_elements(
            net, kind, streams(20), SIZES, constraints=constraints, num_atoms=[size] * 20
        )
        assert all(len(n) == size and holds(n, constraints, kind) for n in fixed)


@pytest.mark.parametrize(
    ("constraints", "sizes", "words"),
    [
        (Constraints(allowed=frozenset({3}), required=frozenset({8})), None, "O is asked for"),
        (
            Constraints(allowed=frozenset({50})),
            None,
            "of Sn, which may appear",
        ),
        (Constraints(formula={3: 5, 8: 2}), None, "7 atoms"),
        (Constraints(required=frozenset(range(1, 12))), None, "at least 11 atoms"),
        (Constraints(), [7], "num_atoms=7"),
        (Constraints(formula={3: 1, 8: 2}), [4], "3, 6"),
        (Constraints(least={3: 9}), None, "at least 9 atoms"),
        (Constraints(least={3: 2}, most={3: 1}), None, "Li is asked for"),
        (Constraints(most=dict.fromkeys(range(1, 13), 0)), None, "no composition fits"),
        (Constraints(allowed=frozenset({3}), most={3: 0, 4: 2}), None, "no composition fits"),
        (Constraints(num_atoms=frozenset({7})), None, "num_atoms=[7]"),
        (Constraints(num_elements=9), None, "at least 9 atoms"),
        (Constraints(required=frozenset({3, 8}), num_elements=1), None, "2 are asked for"),
        (Constraints(allowed=frozenset({3, 8}), num_elements=3), None, "3 elements"),
    ],
)
def test_what_cannot_be_drawn_is_refused_first(
    constraints: Constraints, sizes: list[int] | None, words: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        draw_elements(
            prior(), "crystal", streams(1), SIZES, constraints=constraints, num_atoms=sizes
        )


def test_the_size_of_an_only_composition_follows_the_likelihood() -> None:
    net = prior(max_atoms=8, num_elements=12)
    constraints = Constraints(least={3: 1, 8: 2}, most={8: 2}, allowed=frozenset({3, 8}))
    drawn = draw_elements(
        net, "crystal", streams(3000), [0, 1, 1, 1, 1, 1], constraints=constraints
    )
    compositions = [[3] * n + [8, 8] for n in (1, 2, 3)]
    padded = torch.tensor([each + [0] * (5 - len(each)) for each in compositions])
    chances = net.log_probability("crystal", padded).softmax(dim=0).tolist()
    for composition, chance in zip(compositions, chances, strict=True):
        share = sum(each == composition for each in drawn) / 3000
        assert abs(share - chance) < 4.5 * math.sqrt(chance * (1 - chance) / 3000)


def test_elements_that_the_training_data_lack_are_never_drawn() -> None:
    net = prior(elements={"molecule": [1, 6, 8]})
    drawn = draw_elements(net, "molecule", streams(200), SIZES)
    assert {z for numbers in drawn for z in numbers} <= {1, 6, 8}
    with pytest.raises(ValueError, match="not in the training data"):
        draw_elements(
            net, "molecule", streams(1), SIZES, constraints=Constraints(required=frozenset({3}))
        )


def labelled(folder: Path) -> list[str]:
    """The tiny data sets of the training tests; crystals with a number, 0 for the first element."""
    paths = make_data(folder)
    data = PreparedData.load(Path(paths[0]))
    starts = torch.cumsum(data.num_atoms, 0) - data.num_atoms
    salts = torch.tensor([[3, 9], [11, 17], [19, 35]], dtype=torch.uint8)
    data = dataclasses.replace(data, atomic_numbers=salts.repeat(10, 1).flatten())
    first = data.atomic_numbers[starts.long()].float()
    condition = Condition("stiffness", type="number", dropout=0.2, kinds=("crystal",), high=20.0)
    dataclasses.replace(data, labels={"stiffness": first}, conditions=(condition,)).save(
        Path(paths[0])
    )
    return paths


@pytest.mark.parametrize("kind", ["crystal", "molecule"])
def test_the_loss_of_a_batch_does_not_depend_on_its_chunks(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = prior(max_atoms=8, num_elements=12, hydrogens_last=False)
    net.config = dataclasses.replace(net.config, dropout=0.0)
    generator = torch.Generator().manual_seed(3)
    numbers = torch.randint(1, 12, (9, 7), generator=generator).sort(dim=1)[0]
    numbers *= torch.arange(7) < torch.randint(1, 8, (9, 1), generator=generator)
    expected = -net.log_probability(kind, numbers).mean()
    torch.testing.assert_close(net.loss(kind, numbers, {}), expected)
    monkeypatch.setattr("adit_model.prior.CHUNKS", 1)
    torch.testing.assert_close(net.loss(kind, numbers, {}), expected)


def test_a_prior_is_trained_beside_a_checkpoint_and_is_told_its_conditions(tmp_path: Path) -> None:
    data = labelled(tmp_path)
    quiet = ["--threads", "1", "--device", "cpu", "--precision", "float32"]
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    assert main(["autoencoder", "--data", *data, "--out", str(one), "--steps", "3", *TINY]) == 0
    begin = ["denoiser", "--data", *data, "--out", str(two), "--steps", "2", *TINY]
    told = ["--condition", "elements", "stiffness"]
    assert main([*begin, "--autoencoder", str(one / "model"), *told]) == 0
    before = ADiT.from_pretrained(two / "model", device="cpu")
    assert before.prior is None and before.tells_elements
    learn = ["prior", "--data", *data, "--out", str(three), "--init", str(two / "model")]
    options = ["--steps", "150", "--tokens", "400", "--learning-rate", "3e-3"]
    assert main([*learn, *options, "--condition", "stiffness", *quiet]) == 0
    model = ADiT.from_pretrained(three / "model", device="cpu")
    assert model.prior is not None
    for name, tensor in before.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor)
    assert model.config.size_histogram == before.config.size_histogram
    table = PreparedData.load(Path(data[0]))
    pairs = {tuple(sorted(p)) for p in table.atomic_numbers.view(-1, 2).tolist()}
    drawn = model.draw_elements(200, "crystal", seed=1)
    assert sum(tuple(each) in pairs for each in drawn) > 150
    batch = model.draw(len(drawn), "crystal", elements=drawn).batch
    assert batch.atomic_numbers.tolist() == drawn
    value = float(table.labels["stiffness"][0])
    asked = model.draw_elements(100, "crystal", conditions={"stiffness": value})
    share, free = (sum(each == [3, 9] for each in some) / len(some) for some in (asked, drawn))
    assert value == 3 and share > free + 0.2
    led = model.draw_elements(
        100, "crystal", conditions={"stiffness": value}, condition_guidance={"stiffness": 2.0}
    )
    assert sum(each == [3, 9] for each in led) / len(led) >= share
    assert led != asked
    same = model.draw_elements(
        100, "crystal", conditions={"stiffness": value}, condition_guidance={"stiffness": 1.0}
    )
    ignored = model.draw_elements(
        200, "crystal", seed=1,
        conditions={"stiffness": value}, condition_guidance={"stiffness": 0.0},
    )  # fmt: skip
    assert same == asked and ignored == drawn  # 0 leads back to what is told nothing
    for told, scales, words in (
        ({}, {"stiffness": 2.0}, r"'stiffness', which the prior is not told. Told: nothing"),
        ({"stiffness": 1.0}, {"stiffness": -1.0}, r"at least 0 .*-1"),
    ):
        with pytest.raises(ValueError, match=words):
            model.draw_elements(1, "crystal", conditions=told, condition_guidance=scales)
    with pytest.raises(ValueError, match=r"stiffness.*0 to 20.*training data.*99"):
        model.draw_elements(1, "crystal", conditions={"stiffness": 99})
    with pytest.raises(ValueError, match=r"one of crystals"):
        model.draw(1, "molecule", conditions={"stiffness": 1.0})
    with pytest.raises(ValueError, match=r"No condition 'colour'.*stiffness"):
        model.sample(1, conditions={"colour": 1})


def test_a_trained_prior_goes_on_with_more_elements_and_conditions(tmp_path: Path) -> None:
    data = labelled(tmp_path)
    quiet = ["--threads", "1", "--device", "cpu", "--precision", "float32", "--tokens", "200"]
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    assert main(["autoencoder", "--data", *data, "--out", str(one), "--steps", "1", *TINY]) == 0
    begin = ["denoiser", "--data", *data, "--out", str(two), "--steps", "1", *TINY]
    assert main([*begin, "--autoencoder", str(one / "model"), "--condition", "elements"]) == 0
    first = ["prior", "--data", *data, "--out", str(three), "--init", str(two / "model")]
    assert main([*first, "--steps", "1", *quiet]) == 0
    before = ADiT.from_pretrained(three / "model", device="cpu")
    assert before.prior is not None and not before.prior.config.conditions

    table = PreparedData.load(Path(data[0]))
    numbers = table.atomic_numbers.clone()
    row = int(torch.nonzero(table.split == 0)[0])
    numbers[2 * row : 2 * row + 2] = torch.tensor([12, 16])
    classes = torch.ones(len(table.num_atoms))
    colour = Condition("colour", 3, dropout=0.2, kinds=("crystal",))
    more = dataclasses.replace(
        table,
        atomic_numbers=numbers,
        coords=None,
        cell=None,
        labels={**table.labels, "colour": classes},
        conditions=(*table.conditions, colour),
    )
    more.save(tmp_path / "more.safetensors")
    again = ["prior", "--data", str(tmp_path / "more.safetensors"), "--out", str(tmp_path / "four")]
    again += ["--init", str(three / "model"), "--condition", "stiffness", "colour", *quiet]
    assert main([*again, "--steps", "1", "--learning-rate", "1e-9"]) == 0
    after = ADiT.from_pretrained(tmp_path / "four" / "model", device="cpu")
    assert after.prior is not None
    assert [c.name for c in after.prior.config.conditions] == ["stiffness", "colour"]
    assert {12, 16} <= set(after.prior.config.elements["crystal"])
    assert after.prior.config.elements["molecule"] == before.prior.config.elements["molecule"]
    rows = torch.tensor([[3, 9], [11, 17]])
    told = {"stiffness": torch.tensor([3.0, 11.0]), "colour": torch.tensor([1, 3])}
    # What was added changes nothing before it is trained.
    untold = after.prior.log_probability("crystal", rows)
    torch.testing.assert_close(
        after.prior.log_probability("crystal", rows, told), untold, atol=1e-4, rtol=0
    )


def test_a_prior_refuses_structures_that_it_has_no_places_for() -> None:
    with pytest.raises(TrainingError, match=r"at most 4 atoms.*have 9"):
        widened(PriorConfig(max_atoms=4), PriorConfig(max_atoms=9))
