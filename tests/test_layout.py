"""The packages import each other in one direction only, and the network needs little."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ORDER = ["adit_model", "adit_plugins", "adit_integrations", "benchmarks"]
FOLDERS = {"adit_integrations": ROOT / "integrations" / "adit_integrations"}
NEVER_IN_THE_NETWORK = {"ase", "pymatgen", "rdkit", "pandas", "smact", "chgnet", "mace", "click"}


def imports(path: Path) -> set[str]:
    """Top-level packages that a file imports anywhere, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", ORDER)
def test_imports_point_one_way(package: str) -> None:
    later = set(ORDER[ORDER.index(package) + 1 :])
    files = list(FOLDERS.get(package, ROOT / package).rglob("*.py"))
    assert files or package == "benchmarks"
    wrong = {path.name: imports(path) & later for path in files if imports(path) & later}
    assert not wrong


def test_the_network_imports_no_chemistry() -> None:
    wrong = {
        path.name: imports(path) & NEVER_IN_THE_NETWORK
        for path in (ROOT / "adit_model").rglob("*.py")
    }
    assert not any(wrong.values()), wrong


def test_only_the_registry_reads_entry_points() -> None:
    readers = {p.name for p in (ROOT / "adit_plugins").rglob("*.py") if "entrypoints" in imports(p)}
    assert readers == {"registry.py"}


def decoders(path: Path) -> list[int]:
    """Lines that make objects of what a file holds: `X.from_dict(...)`, monty's decoder."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "from_dict")
        or (isinstance(node, ast.Name) and node.id in ("MontyDecoder", "loadfn"))
    ]


def test_objects_are_made_of_json_where_its_names_of_classes_are_dropped() -> None:
    files = [file for each in ORDER for file in FOLDERS.get(each, ROOT / each).rglob("*.py")]
    found = {file.relative_to(ROOT).as_posix() for file in files if decoders(file)}
    assert found <= {"adit_plugins/inputs.py", "adit_plugins/hull_sources.py"}
    assert "adit_plugins/inputs.py" in found


def renames(path: Path) -> list[int]:
    """Lines that give a file its name: `os.replace`, `Path.rename`, `shutil.move`, `mkstemp`."""
    lines = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
        name = node.func.attr
        # `text.replace(a, b)` has two arguments, `dataclasses.replace(x, y=z)` has a keyword.
        of_path = name in ("replace", "rename") and len(node.args) == 1 and not node.keywords
        of_module = (owner, name) in {("os", "replace"), ("os", "rename"), ("shutil", "move")}
        if of_path or of_module or name in ("mkstemp", "NamedTemporaryFile"):
            lines.append(node.lineno)
    return lines


def test_only_one_function_replaces_files() -> None:
    """Whoever writes beside and renames goes through it, so that no kill leaves half a file."""
    files = [
        file for package in ORDER for file in FOLDERS.get(package, ROOT / package).rglob("*.py")
    ]
    found = {file.relative_to(ROOT).as_posix(): renames(file) for file in files}
    assert {name for name, lines in found.items() if lines} == {"adit_model/outputs.py"}
