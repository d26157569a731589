"""The wheel holds everything, and works outside the checkout."""

from __future__ import annotations

import zipfile
from pathlib import Path

from fresh_environment import ROOT, SOURCES, run


def test_the_wheel_holds_code_tables_weights_and_notices(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    for package in SOURCES:
        root = ROOT / "integrations" if package == "integrations" else ROOT
        for path in (ROOT / package).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and ".egg-info" not in str(path):
                assert str(path.relative_to(root)) in inside
    assert not [name for name in inside if name.startswith(("tests", "benchmarks"))]
    for name in ("LICENSE", "THIRD_PARTY_NOTICES.md"):
        assert any(path.endswith(f"dist-info/licenses/{name}") for path in inside)


def test_the_command_starts_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    assert "discover" in run(installed / "adit", "--help", cwd=tmp_path)


def test_tables_and_entry_points_are_found(installed: Path, tmp_path: Path) -> None:
    code = (
        "import adit_plugins, adit_model, adit_integrations\n"
        "from adit_plugins import registry\n"
        "from adit_plugins.hull.table import Hull\n"
        "from adit_plugins.matching.fingerprints import Fingerprints\n"
        "print(adit_plugins.__file__, adit_model.__file__, adit_integrations.__file__)\n"
        "print(Hull.load().energy_above_hull('NaCl', -2.0).num_reference_phases)\n"
        "print(len(Fingerprints.load('crystal')), len(Fingerprints.load('molecule')))\n"
        "print(registry.load('adit.relaxers', 'chgnet').__module__)\n"
        "print(registry.names('adit.datasets'))\n"
    )
    paths, phases, sizes, relaxer, data = run(
        installed / "python", "-c", code, cwd=tmp_path
    ).splitlines()
    assert paths.count(str(installed.parent)) == 3
    assert int(phases) >= 1
    assert all(int(size) > 10_000 for size in sizes.split())
    assert relaxer == "adit_integrations.chgnet"
    assert "qm9" in data


def test_the_release_is_inside_and_generates(installed: Path, tmp_path: Path) -> None:
    report = run(installed / "adit", "doctor", cwd=tmp_path)
    assert "adit-joint" in report
    assert "checksums match" in report
    run(installed / "adit", "generate", "--num", "2", "--num-steps", "2", "--out", "two.extxyz",
        cwd=tmp_path)  # fmt: skip
    assert "adit-joint/0/1" in (tmp_path / "two.extxyz").read_text()
