"""What is read from files is data: it names no code to run, and unpacks to a bounded size."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pymatgen.core import Molecule, Structure

# Values of site properties that are plain numbers in a class. Whatever else a file names, monty's
# decoder, which pymatgen uses for them, would import it and call its `from_dict`.
PLAIN_CLASSES = {
    ("numpy", "array"),
    ("pymatgen.electronic_structure.core", "Magmom"),
    ("pymatgen.electronic_structure.core", "Spin"),
}
MODULE, CLASS = "@module", "@class"
STRUCTURES = ("Structure", "Molecule")

FREE_BYTES = 64 * 2**20  # what any file may unpack to
MAX_RATIO = 100  # text of structures packs 3 to 20 times, a bomb of zeros 1000 times
_CHUNK = 2**20
_OPENERS: dict[str, Any] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
}
_ARCHIVES = (".zip", ".npz")


def without_classes(value: Any) -> Any:
    """Return parsed JSON without the names of classes and functions to import, at any depth.

    The dictionaries that named them stay, as plain ones; so do a few classes of plain numbers.
    """
    if isinstance(value, list):
        return [without_classes(each) for each in value]
    if not isinstance(value, dict):
        return value
    known = (value.get(MODULE), value.get(CLASS)) in PLAIN_CLASSES and "@callable" not in value
    return {name: without_classes(each) for name, each in value.items() if known or name != MODULE}


def structure_from_dict(content: Any) -> Structure | Molecule:
    """Build what `Structure.as_dict` or `Molecule.as_dict` gave; nothing that it names is imported.

    Raises:
        ValueError: it is neither, or damaged.
    """
    from pymatgen.core import Molecule, Structure

    kind = content.get(CLASS) if isinstance(content, dict) else type(content).__name__
    if kind not in STRUCTURES:
        raise ValueError(f"it is a {kind}. Known: {', '.join(STRUCTURES)}")
    try:
        plain = without_classes(content)
        if kind == "Structure":
            return Structure.from_dict(plain)
        return Molecule.from_dict(plain)
    except (KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise ValueError(f"the {kind} is damaged ({type(error).__name__}: {error})") from error


def check_unpacked_size(path: Path) -> None:
    """Refuse a compressed file that would fill the memory: unpack it once, keeping nothing.

    Plain files pass. A damaged one passes, too: its reader will say what is wrong.

    Raises:
        ValueError: it unpacks to more than 64 MiB and to more than 100 times its own size.
    """
    suffix = path.suffix.lower()
    limit = max(FREE_BYTES, MAX_RATIO * path.stat().st_size)
    try:
        if suffix in _ARCHIVES:
            with zipfile.ZipFile(path) as archive:  # no member gives more than it claims
                size = sum(member.file_size for member in archive.infolist())
        elif suffix in _OPENERS:
            size = 0
            with _OPENERS[suffix](path) as file:
                while size <= limit and (chunk := file.read(_CHUNK)):
                    size += len(chunk)
        else:
            return
    except (OSError, EOFError, zipfile.BadZipFile, lzma.LZMAError, NotImplementedError):
        return
    if size > limit:
        raise ValueError(
            f"it unpacks to more than {limit // 2**20} MiB, over {MAX_RATIO} times its own size, "
            "as no file of structures does. If you trust it, unpack it yourself"
        )
