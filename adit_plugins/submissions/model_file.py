"""The YAML that describes a model to Matbench Discovery: what it must say, and what it may not.

The keys and enumerations are those of its `contributing.md` and `tests/model-schema.yml` in 2026.
That schema is in no release of the package matbench-discovery (1.3.1 has only modules and the list
of its figshare files), so the rules stand here; what the benchmark's own tests say, counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from datetime import date
from pathlib import Path
from typing import Any

FILL_IN = "FILL IN"
KEY_PATTERN = re.compile(r"[a-z0-9]+(?:[.-][a-z0-9]+)*")

LIFECYCLES = ("active", "superseded", "deprecated", "aborted")
OPENNESS = ("OSOD", "OSCD", "CSOD", "CSCD")  # open or closed source, open or closed data
ARCHITECTURES = (
    "gnn", "transformer", "random_forest", "fingerprint", "bayesian_optimization", "unknown",
)  # fmt: skip
TRAIN_TASKS = ("RP2RE", "RS2RE", "S2E", "S2RE", "S2EF", "S2EFS", "S2EFSM")
TEST_TASKS = ("IP2E", "IS2E", "IS2RE", "IS2RE-SR")
TARGETS = ("E", "EF_G", "EF_D", "EFS_G", "EFSH_G", "EFS_D", "EFS_GM", "EFS_DM")
LICENCES = (
    "MIT", "Apache-2.0", "CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0", "GPL-3.0", "BSD-3-Clause",
    "LGPL-3.0", "Meta Research", "ASL", "unreleased",
)  # fmt: skip
# Mappings whose keys are fixed: required, then allowed besides.
INNER = {
    "dates": (("benchmark_added", "paper_published"), ()),
    "environment": (
        ("dependencies", "python_version"),
        ("find_links", "extra_index_urls", "project"),
    ),
    "license": (("code", "checkpoint"), ("code_url", "checkpoint_url")),
    "hyperparams": ((), ("evaluation", "architecture", "training")),
    "training_cost": (("entries",), ()),
}


class ModelFileError(ValueError):
    """The description of a model breaks a rule of the benchmark."""


@dataclass(frozen=True)
class ModelFile:
    """A model's description; a field for every key, the optional ones last.

    Raises:
        ModelFileError: a value is missing, unknown or of the wrong kind.

    Examples:
        >>> from adit_plugins.submissions.model_file import ModelFile, template
        >>> ModelFile.from_mapping(template("chgnet-0.3.0"))
        Traceback (most recent call last):
            ...
        adit_plugins.submissions.model_file.ModelFileError: authors: name is still to be filled in.
    """

    model_name: str
    model_key: str
    model_version: str
    authors: Sequence[Mapping[str, Any]]
    architecture_types: Sequence[str]
    environment: Mapping[str, Any]
    checkpoint_url: str
    dates: Mapping[str, Any]
    doi: str
    license: Mapping[str, Any]
    lifecycle: str
    model_params: int
    openness: str
    paper: str
    pr_url: str
    repo: str
    targets: str
    test_task: str
    train_task: str
    training_sets: Sequence[str]
    trained_by: Sequence[Mapping[str, Any]] | None = None
    docs: str | None = None
    pypi: str | None = None
    hyperparams: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, Any] | None = None
    size: str | None = None
    fine_tune: bool | None = None
    n_estimators: int | None = None
    training_cost: Mapping[str, Any] | None = None
    superseded_by: str | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (each.name for each in fields(self)):
            _filled(name, getattr(self, name))
        for name, (required, allowed) in INNER.items():
            if getattr(self, name) is not None:
                _check_keys(name, getattr(self, name), required, allowed)
        self._check_names()
        for name, url in self._urls().items():
            if url is not None and not re.match(r"https?://\S+$", str(url)):
                _fail(name, url, "a URL that begins with https://")
        _choose("lifecycle", self.lifecycle, LIFECYCLES)
        _choose("openness", self.openness, OPENNESS)
        _choose("train_task", self.train_task, TRAIN_TASKS)
        _choose("test_task", self.test_task, TEST_TASKS)
        _choose("targets", self.targets, TARGETS)
        for each in _list("architecture_types", self.architecture_types):
            _choose("architecture_types", each, ARCHITECTURES)
        for part in ("code", "checkpoint"):
            _choose(f"license: {part}", self.license[part], LICENCES)
        for day in ("benchmark_added", "paper_published"):
            _check_date(f"dates: {day}", self.dates[day])

    def _check_names(self) -> None:
        if not KEY_PATTERN.fullmatch(str(self.model_key)):
            _fail("model_key", self.model_key, "lower case and hyphens, such as my-model-1.0")
        if isinstance(self.model_params, bool) or not isinstance(self.model_params, int):
            _fail("model_params", self.model_params, "a whole number")
        for person in _list("authors", self.authors):
            if not isinstance(person, Mapping) or not person.get("name"):
                _fail("authors", person, "mappings with a name")
        if not self.authors[0].get("email"):
            _fail("authors", self.authors[0], "an email of the first author")
        if self.lifecycle == "superseded" and not self.superseded_by:
            _fail("superseded_by", self.superseded_by, "the key of the model that follows")
        for dependency in _list("environment: dependencies", self.environment["dependencies"]):
            if not isinstance(dependency, str):
                _fail("environment: dependencies", dependency, "texts such as torch==2.8.0")
        _list("training_sets", self.training_sets)

    def _urls(self) -> dict[str, Any]:
        names = ("checkpoint_url", "doi", "paper", "pr_url", "repo", "docs", "pypi")
        urls = {name: getattr(self, name) for name in names}
        if self.checkpoint_url == "missing":  # closed models have none
            del urls["checkpoint_url"]
        return urls

    @classmethod
    def from_mapping(cls, content: Mapping[str, Any]) -> ModelFile:
        """Take the content of a file.

        Raises:
            ModelFileError: a key is missing or unknown, or a value breaks a rule.
        """
        required = [each.name for each in fields(cls) if _is_required(each)]
        optional = [each.name for each in fields(cls) if not _is_required(each)]
        _check_keys("the file", content, required, optional)
        return cls(**content)

    @classmethod
    def read(cls, path: Path) -> ModelFile:
        """Read a YAML file.

        Raises:
            ModelFileError: it is no YAML mapping, or breaks a rule.
        """
        import yaml

        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ModelFileError(f"Cannot read {path}: {error}") from error
        if not isinstance(content, Mapping):
            raise ModelFileError(f"{path} is no YAML mapping.")
        try:
            return cls.from_mapping(content)
        except ModelFileError as error:
            raise ModelFileError(f"{path}: {error}") from error

    def to_yaml(self) -> str:
        """Return the file, without the optional keys that say nothing."""
        content = {each.name: getattr(self, each.name) for each in fields(self)}
        return as_yaml({name: value for name, value in content.items() if value not in (None, {})})


def as_yaml(content: Mapping[str, Any]) -> str:
    """Return YAML in the order of the mapping."""
    import yaml

    return str(yaml.safe_dump(_plain(content), sort_keys=False, allow_unicode=True, width=100))


def template(potential: str) -> dict[str, Any]:
    """Return a description to be filled in: every required key, and what is known already.

    Args:
        potential: name of the model that makes the energies, with its version.
    """
    today = date.today().isoformat()
    return {
        "model_name": potential,
        "model_key": key_of(potential),
        "model_version": FILL_IN,
        "authors": [{"name": FILL_IN, "affiliation": FILL_IN, "email": FILL_IN}],
        "architecture_types": ["gnn"],
        "environment": {"dependencies": [FILL_IN], "python_version": "3.11"},
        "checkpoint_url": f"https://{FILL_IN}",
        "dates": {"benchmark_added": today, "paper_published": FILL_IN},
        "doi": f"https://doi.org/{FILL_IN}",
        "license": {"code": _one_of(LICENCES), "checkpoint": _one_of(LICENCES)},
        "lifecycle": "active",
        "model_params": FILL_IN,
        "openness": _one_of(OPENNESS),
        "paper": f"https://{FILL_IN}",
        "pr_url": f"https://github.com/janosh/matbench-discovery/pull/{FILL_IN}",
        "repo": f"https://{FILL_IN}",
        "targets": _one_of(TARGETS),
        "test_task": "IS2RE-SR",
        "train_task": _one_of(TRAIN_TASKS),
        "training_sets": [FILL_IN],
    }


def _one_of(known: Sequence[str]) -> str:
    return f"{FILL_IN}: {' | '.join(known)}"


def key_of(potential: str) -> str:
    """Return a model key made of a potential's name."""
    return re.sub(r"[^a-z0-9]+$|^[^a-z0-9]+", "", re.sub(r"[^a-z0-9.]+", "-", potential.lower()))


def _is_required(each: Any) -> bool:
    return each.default is MISSING and each.default_factory is MISSING


def _check_keys(where: str, content: Any, required: Sequence[str], allowed: Sequence[str]) -> None:
    if not isinstance(content, Mapping):
        _fail(where, content, f"a mapping with {', '.join([*required, *allowed])}")
    if lacking := [name for name in required if name not in content]:
        raise ModelFileError(f"{where} lacks {', '.join(lacking)}.")
    if unknown := [str(name) for name in content if name not in (*required, *allowed)]:
        known = ", ".join([*required, *allowed])
        raise ModelFileError(f"{where} has unknown keys: {', '.join(unknown)}. Known: {known}.")


def _filled(where: str, value: Any) -> None:
    if isinstance(value, Mapping):
        for key, each in value.items():
            if isinstance(each, str) and FILL_IN in each:
                raise ModelFileError(f"{where}: {key} is still to be filled in.")
            _filled(where, each)
    elif isinstance(value, list | tuple):
        for each in value:
            _filled(where, each)
    elif isinstance(value, str) and FILL_IN in value:
        raise ModelFileError(f"{where} is still to be filled in.")


def _choose(where: str, value: Any, known: Sequence[str]) -> None:
    if value not in known:
        _fail(where, value, f"one of {', '.join(known)}")


def _list(where: str, value: Any) -> Sequence[Any]:
    if not isinstance(value, list | tuple) or not value:
        _fail(where, value, "a list with at least one entry")
    return list(value)


def _check_date(where: str, value: Any) -> None:
    try:
        date.fromisoformat(str(value))
    except ValueError:
        _fail(where, value, "a date such as 2026-11-23")


def _fail(where: str, value: Any, wanted: str) -> None:
    raise ModelFileError(f"{where} is {value!r}; it must be {wanted}.")


def _plain(value: Any) -> Any:
    """What YAML's safe form can hold; dates become texts, as in the benchmark's own files."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if hasattr(value, "item"):
        return value.item()
    return value if isinstance(value, int | float | str | bool | None) else str(value)
