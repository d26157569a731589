"""Plugins are found through installed metadata, and every failure says what to do next."""

import subprocess
import sys
from pathlib import Path

import pytest
from monty.json import MontyDecoder

from adit_plugins import registry


def add_distribution(folder: Path, entry_points: str) -> None:
    info = folder / "stranger-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "entry_points.txt").write_text(entry_points)


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    add_distribution(
        tmp_path,
        "[adit.relaxers]\nmirror = stranger_mod:make\nghost = stranger_mod:nothing\n"
        "lame = stranger_lame:make\nextra = stranger_extra:make\n",
    )
    (tmp_path / "stranger_mod.py").write_text("def make():\n    return 'mirrored'\n")
    (tmp_path / "stranger_lame.py").write_text("import surely_not_installed_anywhere\n")
    (tmp_path / "stranger_extra.py").write_text(
        "raise ModuleNotFoundError('no', name='torch_sim.runners')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_strangers_package_joins_by_its_entry_points(stranger: Path) -> None:
    assert "mirror" in registry.names("adit.relaxers")
    assert registry.load("adit.relaxers", "mirror")() == "mirrored"


def test_unknown_name_lists_the_known_ones(stranger: Path) -> None:
    with pytest.raises(registry.UnknownPluginError, match=r"'mirrow' in adit.relaxers.*mirror"):
        registry.load("adit.relaxers", "mirrow")


def test_unknown_group_lists_the_groups() -> None:
    with pytest.raises(registry.UnknownPluginError, match=r"adit\.relaxer'.*adit\.relaxers"):
        registry.names("adit.relaxer")


def test_missing_package_names_it_and_the_command(stranger: Path) -> None:
    with pytest.raises(registry.MissingExtraError, match="pip install surely_not_installed"):
        registry.load("adit.relaxers", "lame")
    with pytest.raises(registry.MissingExtraError, match=r'"adit-plugins\[torch-sim\]"'):
        registry.load("adit.relaxers", "extra")


def test_entry_point_to_a_missing_attribute(stranger: Path) -> None:
    with pytest.raises(registry.UnknownPluginError, match="stranger_mod:nothing"):
        registry.load("adit.relaxers", "ghost")


def test_plain_checkout_without_metadata_says_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert registry.names("adit.relaxers") == []
    with pytest.raises(registry.UnknownPluginError, match=r"pip install -e \."):
        registry.load("adit.relaxers", "chgnet")


def test_modules_import_by_the_names_that_were_documented_before() -> None:
    from adit_plugins.filters import SmactFilter
    from adit_plugins.hull_energies import ConventionError, place
    from adit_plugins.transformations import ADiTVariationTransformation

    from adit_plugins.hosts import filters, transformations
    from adit_plugins.hull import energies

    assert SmactFilter is filters.SmactFilter
    assert (place, ConventionError) == (energies.place, energies.ConventionError)
    assert ADiTVariationTransformation is transformations.ADiTVariationTransformation
    with pytest.raises(ImportError, match="NoFilter"):
        from adit_plugins.filters import NoFilter  # type: ignore[attr-defined]  # noqa: F401
    # What `as_dict` of a transmuter wrote then names the module of then.
    written = transformations.ADiTVariationTransformation(0.2).as_dict()
    written["@module"] = "adit_plugins.transformations"
    made = MontyDecoder().process_decoded(written)
    assert isinstance(made, transformations.ADiTVariationTransformation)


def test_former_names_cost_nothing_until_they_are_used() -> None:
    code = (
        "import sys, adit_plugins.filters as f\n"
        "assert 'pymatgen' not in sys.modules\n"
        "from adit_plugins.filters import *\n"
        "assert SmactFilter.__module__ == 'adit_plugins.hosts.filters'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
