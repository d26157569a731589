"""Values for JSON and for people."""

from __future__ import annotations

import json

import numpy as np

from adit_plugins.outputs import differences


def test_what_json_cannot_hold_becomes_what_it_can() -> None:
    import numpy as np

    from adit_plugins.outputs import without_nan

    value = {"a": np.array([[1.0, np.nan], [2.0, np.inf]]), "b": np.int64(3), 4: (np.float32(0.5),)}
    expected = {"a": [[1.0, None], [2.0, None]], "b": 3, "4": [0.5]}
    assert without_nan(value) == expected and json.loads(json.dumps(without_nan(value))) == expected


def test_differences_are_named_in_words() -> None:
    before = {"num": 10, "cells": [2, 4], "gone": 1, "part": {"seed": 0, "same": 2}}
    now = {
        "num": np.int64(12),
        "cells": (2, 4),
        "new": "x",
        "part": {"seed": 1, "same": 2},
    }
    assert differences(before, now) == [
        "num was 10, not 12", "gone was 1, not None", "seed was 0, not 1", "new was None, not 'x'",
    ]  # fmt: skip
