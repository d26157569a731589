"""The packages import each other in one direction only, and the network needs little."""

import ast
from graphlib import CycleError, TopologicalSorter
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
    assert found <= {"adit_plugins/structures/untrusted.py", "adit_plugins/hull/loaders.py"}
    assert "adit_plugins/structures/untrusted.py" in found


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


# The rooms of `adit_plugins` from the ground up: each imports from those before it alone.
ROOMS = (
    "_version", "lazy", "registry", "outputs", "processes", "structures", "validity",
    "matching", "datasets", "relax", "hull", "dft", "generation", "hosts", "metrics", "submissions",
    "campaign", "report", "prediction", "improvement", "cli",
)  # fmt: skip


def modules(root: Path) -> dict[str, Path]:
    """Files of the three packages by the name that imports them."""
    found = {}
    for package in ORDER[:3]:
        folder = root / FOLDERS.get(package, ROOT / package).relative_to(ROOT)
        for path in folder.rglob("*.py"):
            name = ".".join(path.relative_to(folder.parent).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def imports_between(files: dict[str, Path], types_too: bool) -> dict[str, set[str]]:
    """Which of the files each imports, also inside functions."""
    graph: dict[str, set[str]] = {}
    for name, path in files.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        typed = [n for n in ast.walk(tree) if isinstance(n, ast.If) and _is_for_types(n.test)]
        left_out = set() if types_too else {each for n in typed for each in ast.walk(n)}
        graph[name] = set()
        for node in ast.walk(tree):
            if node in left_out:
                continue
            if isinstance(node, ast.Import):
                graph[name] |= {alias.name for alias in node.names} & files.keys()
            elif isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    full = f"{node.module}.{alias.name}"
                    graph[name] |= {full if full in files else node.module} & files.keys()
        graph[name].discard(name)
    return graph


def _is_for_types(test: ast.expr) -> bool:
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def room_of(module: str) -> str:
    return module.split(".")[1]


def climbs(files: dict[str, Path]) -> list[str]:
    """Imports from a room that is not below."""
    wrong = []
    for name, targets in imports_between(files, types_too=True).items():
        if not name.startswith("adit_plugins."):  # the package itself is the roof
            continue
        for target in targets:
            if target == "adit_plugins":
                wrong.append(f"{name} imports the roof; take the name from its room")
            elif target.startswith("adit_plugins."):
                own, other = room_of(name), room_of(target)
                if own != other and ROOMS.index(other) > ROOMS.index(own):
                    wrong.append(f"{name} -> {target}")
    return wrong


def test_rooms_import_downwards_only() -> None:
    files = modules(ROOT)
    rooms = {room_of(name) for name in files if name.startswith("adit_plugins.")}
    assert rooms - {"__main__"} <= set(ROOMS)
    assert not climbs(files)


def test_tests_lie_in_the_rooms_that_they_are_of() -> None:
    """`model` is `adit_model`, whose name would hide the package from the tests."""
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert folders <= {*ROOMS, "model", "integrations"}
    every = [path.name for path in (ROOT / "tests").rglob("*.py")]
    assert len(every) == len(set(every))  # pytest imports them by these names
    assert every.count("conftest.py") == 1


def test_no_file_imports_itself_by_way_of_others() -> None:
    TopologicalSorter(imports_between(modules(ROOT), types_too=False)).prepare()


def test_a_circle_and_a_climb_are_seen(tmp_path: Path) -> None:
    for name, line in {
        "adit_model/low.py": "def f():\n    from adit_model import high",
        "adit_model/high.py": "from adit_model.low import f",
        "adit_plugins/hull/table.py": "import adit_plugins.campaign.store",
        "adit_plugins/campaign/store.py": "from adit_plugins.hull.table import Hull",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(line)
    files = modules(tmp_path)
    graph = imports_between(files, types_too=False)
    with pytest.raises(CycleError, match=r"adit_model\.low"):
        TopologicalSorter({k: v for k, v in graph.items() if "model" in k}).prepare()
    assert climbs(files) == ["adit_plugins.hull.table -> adit_plugins.campaign.store"]


def test_each_room_says_what_it_is_for_and_hands_on_what_it_lists() -> None:
    import importlib

    inits = {name: path for name, path in modules(ROOT).items() if path.name == "__init__.py"}
    for name, path in inits.items():
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), name
        module = importlib.import_module(name)
        for public in getattr(module, "__all__", ()):
            assert getattr(module, public) is not None, f"{name}.{public}"
        assert set(getattr(module, "__all__", ())) <= set(dir(module))
