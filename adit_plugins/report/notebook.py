"""Structures that show themselves in notebooks and browsers."""

from __future__ import annotations

import html
import io
import tempfile
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adit_plugins.structures.samples import Convertible, to_samples

if TYPE_CHECKING:
    from ase import Atoms


class Page:
    """The page of some structures, shown by a notebook in a frame of its own.

    Attributes:
        text: HTML; complete, to be written into a file.
    """

    def __init__(self, text: str, height: int = 640) -> None:
        self.text, self.height = text, height

    def _repr_html_(self) -> str:
        frame = 'style="width:100%;border:1px solid #8884;border-radius:6px"'
        source = html.escape(self.text, quote=True)
        return f'<iframe {frame} height="{self.height}" srcdoc="{source}"></iframe>'


def view(samples: Convertible | Sequence[Convertible], height: int = 640) -> Page:
    """Show structures in a notebook: table, 3D, downloads.

    Args:
        samples: one structure or several: Sample, ASE Atoms, pymatgen, RDKit.
        height: of the frame, pixels.

    Raises:
        TypeError: the type of a structure is not known.
        ValueError: a structure is impossible, or there is none.

    Examples:
        >>> from ase.build import bulk
        >>> from adit_plugins import view
        >>> page = view([bulk("NaCl", "rocksalt", a=5.64), bulk("Cu")])
        >>> page.text.startswith("<!DOCTYPE html>")
        True
    """
    from adit_plugins.report.results import sample_results
    from adit_plugins.report.write import write_page

    made = to_samples(samples)
    if not made:
        raise ValueError("no structures to show: the list is empty")
    buffer = io.StringIO()
    title = "1 structure" if len(made) == 1 else f"{len(made)} structures"
    write_page([sample_results(made)], buffer, title=title)
    return Page(buffer.getvalue(), height)


def _for_ase(atoms: Atoms) -> Atoms:
    """ASE shows slabs and wires, too: as crystals where there is a cell, else as molecules."""
    atoms = atoms.copy()
    atoms.pbc = bool(atoms.pbc.any()) and abs(atoms.cell.volume) > 1e-6
    return atoms


def view_adit(atoms: Atoms | Sequence[Atoms], **_: Any) -> Path:
    """Open structures in the browser: ASE's `view(atoms, viewer="adit")`.

    Returns:
        The page, which stays in the folder for temporary files.
    """
    several: list[Any] = list(atoms) if isinstance(atoms, list | tuple) else [atoms]
    made = [_for_ase(each) for each in several]
    page = Path(tempfile.mkdtemp(prefix="adit-view-")) / "view.html"
    page.write_text(view(made).text, encoding="utf-8")
    webbrowser.open(page.as_uri())
    return page
