"""How a benchmark leaves its results and finds them; nothing but Python, for bare machines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def write_json(content: dict[str, Any], path: Path | None) -> None:
    """Print the results, and write them to a file if one was named."""
    text = json.dumps(content, indent=1)
    print(text)
    if path is not None:
        path.write_text(text + "\n", encoding="utf-8")


def stored(name: str) -> Any:
    """What a benchmark has left in `RESULTS`."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
