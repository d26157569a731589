"""Command-line options that are made from a dataclass."""

from __future__ import annotations

import argparse
from dataclasses import MISSING, dataclass
from typing import Literal

import pytest

from adit_model.training.cli import parser
from adit_model.training.options import add_options, option, values_of
from adit_model.training.trainer import TrainingConfig


@dataclass(frozen=True)
class Record:
    files: tuple[str, ...] = option(MISSING, "what is read", metavar="FILE")
    rate: float = option(0.5, "a day")
    limit: int | None = option(None, "at most")
    way: Literal["up", "down"] = option("up", "where to")
    loud: bool = option(False, "says more")
    hidden: int = 3


def parsed(*words: str) -> Record:
    made = argparse.ArgumentParser(exit_on_error=False)
    add_options(made, Record)
    return Record(**values_of(Record, made.parse_args(words)))


def test_types_and_defaults_are_those_of_the_fields() -> None:
    assert parsed("--files", "a", "b") == Record(("a", "b"))
    every = parsed("--files", "a", "--rate", "2", "--limit", "4", "--way", "down", "--loud")
    assert every == Record(("a",), 2.0, 4, "down", True)
    assert type(every.rate) is float and type(every.limit) is int


@pytest.mark.parametrize("words", ["--files a --way left", "--files a --limit 1.5"])
def test_a_value_of_a_wrong_type_is_refused(words: str) -> None:
    with pytest.raises(argparse.ArgumentError):
        parsed(*words.split())


def test_the_training_command_has_the_fields_of_its_record_with_their_defaults() -> None:
    args = parser().parse_args(["denoiser", "--data", "x", "--out", "y", "--steps", "1"])
    made = TrainingConfig(**values_of(TrainingConfig, args))
    assert made == TrainingConfig("denoiser", ("x",), "y", steps=1)
    told = parser().format_help()
    assert "--learning-rate" in told and "(default: 0.001)" in told and "{adamw,muon}" in told
