"""Command-line options that are made from a dataclass."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import MISSING, dataclass
from typing import Literal

import pytest

from adit_model.config import AutoencoderConfig, DenoiserConfig, FlowConfig
from adit_model.training.cli import architecture, parser
from adit_model.training.options import add_options, option, values_of
from adit_model.training.settings import ARCHITECTURES
from adit_model.training.trainer import TrainingConfig, TrainingError


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


RUN = ["--data", "x", "--out", "y", "--steps", "1"]


def another(field: dataclasses.Field[object], value: object) -> list[str]:
    """An option with a value that is not the recipe's."""
    name = field.name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--no-{name}" if value else f"--{name}"]
    choices = parser()._option_string_actions[f"--{name}"].choices
    other = next(iter(set(choices) - {value})) if choices else type(value)(2 * value)  # type: ignore[call-overload]
    return [f"--{name}", str(other)]


@pytest.mark.parametrize(
    ("stage", "part", "fixed"),
    [
        ("autoencoder", AutoencoderConfig, {"num_types"}),
        # The autoencoder says the latent's width; conditions have an option of another shape.
        ("denoiser", DenoiserConfig, {"latent_dim", "conditions"}),
        ("denoiser", FlowConfig, set()),
    ],
)
def test_every_field_of_the_architecture_is_an_option(
    stage: str, part: type, fixed: set[str]
) -> None:
    name = "flow" if part is FlowConfig else stage
    recipe = getattr(architecture(parser().parse_args([stage, *RUN])), name)
    for field in dataclasses.fields(part):
        value = getattr(recipe, field.name)
        if field.name not in fixed:
            words = [stage, *RUN, *another(field, value)]
            if field.name in ARCHITECTURES["equivariant"]:
                words += ["--architecture", "equivariant", "--latent-dim", "16"]
            changed = getattr(architecture(parser().parse_args(words)), name)
            assert getattr(changed, field.name) != value


@pytest.mark.parametrize("words", ["--cutoff 5", "--architecture equivariant --input-frame given"])
def test_an_option_of_the_other_architecture_is_refused(words: str) -> None:
    with pytest.raises(TrainingError, match="architecture, and this is"):
        architecture(parser().parse_args(["autoencoder", *RUN, *words.split()]))


def test_one_depth_and_one_width_are_enough() -> None:
    words = ["autoencoder", *RUN, "--width", "64", "--depth", "2", "--encoder-depth", "1"]
    made = architecture(parser().parse_args(words)).autoencoder
    assert (made.width, made.mlp_width, made.encoder_depth, made.decoder_depth) == (64, 256, 1, 2)
    made = architecture(parser().parse_args(["denoiser", *RUN, "--size", "S"])).denoiser
    assert (made.width, made.depth, made.num_heads) == (384, 12, 6)


@pytest.mark.parametrize(
    ("stage", "wrong"),
    [
        ("autoencoder", "--time-mean 1"), ("denoiser", "--frac-loss plain"), ("prior", "--size S"),
        ("prior", "--width 64"),
    ],
)  # fmt: skip
def test_an_option_of_another_stage_is_refused(stage: str, wrong: str) -> None:
    with pytest.raises(TrainingError, match=f"{wrong.split()[0]}: not of the {stage}"):
        architecture(parser().parse_args([stage, *RUN, *wrong.split()]))
