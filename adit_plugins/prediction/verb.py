"""`predict`: a search in one call."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from adit_plugins.generation.generator import ADiTGenerator
from adit_plugins.prediction.files import check_folder
from adit_plugins.prediction.known import known_structures
from adit_plugins.prediction.results import Predictions
from adit_plugins.prediction.search import NUM, Progress, Search


def predict(
    formula: str | None = None,
    num: int | None = NUM,
    *,
    chemical_system: str | None = None,
    num_atoms: int | Sequence[int] | None = None,
    minutes: float | None = None,
    relaxer: str | None = None,
    reference: str | PathLike[str] | None = None,
    seeds: str | PathLike[str] | None = None,
    out: str | PathLike[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> Predictions:
    """Predict the crystal structures of a formula: sample, relax, group, rank.

    Args:
        formula: exact proportions, such as `"LiFePO4"`; a cell holds a multiple of it.
        num: samples; None for as many as `minutes` allow.
        chemical_system: in the place of a formula, such as `"Li-P-O"`: compositions are drawn, and
            predictions are ordered by energy above hull.
        num_atoms: in a cell, one number or several; None for all that fit.
        minutes: after which no other round begins.
        relaxer: a second potential, such as `"chgnet"`, that relaxes the lowest structures further
            and ranks them.
        reference: a file of known structures, relaxed and ranked beside the samples.
        seeds: a file of crystals of other elements, whose structures take part with these ones.
        out: a folder where everything goes as it is made; then Ctrl-C loses nothing.
        resume: go on with the search in `out`.
        overwrite: replace it.
        progress: called with (stage, done, total).
        **settings: of `Search` (`prefilter`, `keep`, `max_steps`, `workers`, `ensemble`, ...) and
            of `ADiTGenerator` (`checkpoint`, `seed`, `num_steps`, ...).

    Returns:
        Distinct structures, the best first.

    Raises:
        ValueError: the request cannot be met; the message says what can.
        KeyboardInterrupt: at Ctrl-C, once what is finished is written to `out`.

    Examples:
        >>> from adit_plugins import predict
        >>> found = predict("NaCl", num=4, num_atoms=2, num_steps=5, max_steps=5)
        >>> {prediction.formula for prediction in found}
        {'NaCl'}
    """
    folder = None if out is None else Path(out)
    if folder is not None:
        check_folder(folder, resume, overwrite)
    own = {f.name for f in dataclasses.fields(Search) if f.init} & settings.keys()
    recipe = {name: value for name, value in settings.items() if name not in own}
    generator = ADiTGenerator(formula=formula, chemical_system=chemical_system, **recipe)
    search = Search(
        generator,
        num,
        minutes,
        [num_atoms] if isinstance(num_atoms, int) else num_atoms,
        relaxer=relaxer,
        reference=known_structures(generator, reference, seeds),
        folder=folder,
        **{name: settings[name] for name in own},
    )
    search.begin(resume)
    search.run(progress)
    found = search.predictions()
    if folder is not None and found:
        found.write(folder)
    if search.stopped == "interrupted":
        raise KeyboardInterrupt
    return found
