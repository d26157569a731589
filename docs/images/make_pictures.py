"""Make `candidates.png` of this folder from the report of a campaign.

    make discover
    python docs/images/make_pictures.py results/report.html

It is what headless Chromium shows of the page, with 256 colours.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
NAMES = ("chromium", "chromium-browser", "google-chrome")
WIDTH, HEIGHT = 1280, 860  # pixels
MAX_BYTES = 200_000


def main() -> None:
    """Write the picture.

    Raises:
        SystemExit: there is no Chromium, or it made no picture, or one that is too large.
    """
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("report", type=Path, help="report.html of a campaign")
    report = parser.parse_args().report.absolute()
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        raise SystemExit("Install Chromium first (Debian: apt-get install chromium).")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        subprocess.run(  # noqa: S603 (the program that was found)
            [program, "--headless=new", "--no-sandbox", "--hide-scrollbars", "--no-first-run",
             "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
             f"--user-data-dir={folder}/profile", f"--window-size={WIDTH},{HEIGHT}",
             "--virtual-time-budget=10000", f"--screenshot={shot}", report.as_uri()],
            check=True, capture_output=True, timeout=300,
        )  # fmt: skip
        if not shot.is_file():
            raise SystemExit(f"Chromium made no picture of {report}.")
        target = HERE / "candidates.png"
        Image.open(shot).convert("RGB").quantize(256).save(target, optimize=True)
    size = target.stat().st_size
    if size > MAX_BYTES:
        raise SystemExit(f"{target} has {size} bytes, more than {MAX_BYTES}.")
    print(f"{target}: {size} bytes")


if __name__ == "__main__":
    main()
