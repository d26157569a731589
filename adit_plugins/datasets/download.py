"""Downloads: whole, of the known content, and gone on with where one broke off."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from adit_model.outputs import replacing
from adit_plugins.datasets.errors import DatasetError

TIMEOUT = 60.0  # seconds without an answer
CHUNK = 2**20
PARTIAL = 206  # the status of an answer that goes on


def cache() -> Path:
    """Where downloads are kept.

    Raises:
        DatasetError: this user has no home folder.
    """
    try:
        return Path.home() / ".cache" / "adit-plugins"
    except RuntimeError as error:
        raise DatasetError("No home folder to download into: set HOME, or --source.") from error


def download(
    url: str, path: Path, known_hash: str | None = None, otherwise: str = "pass --source PATH"
) -> None:
    """Fetch a file once; what came of it before a break is kept in `NAME.part` and gone on with.

    Args:
        url: where from; of fixed content, by a checksum or a commit.
        path: where to.
        known_hash: `sha256:...` or `md5:...` as the source publishes it. Without one, the SHA-256
            of the first download is recorded in a file beside it, and compared from then on.
        otherwise: what can be done where there is no network.

    Raises:
        DatasetError: no network, a download that broke off, or not the known content.
    """
    record = path.with_suffix(".sha256.json")
    if known_hash is None and path.is_file() and record.is_file():
        if json.loads(record.read_text())["sha256"] != digest(path):
            raise DatasetError(
                f"{path} changed since its first use; delete it to download it again."
            )
        return
    if known_hash is not None and path.is_file() and _matches(path, known_hash):
        return
    part = path.with_name(f"{path.name}.part")
    try:
        if known_hash is not None or not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            _fetch(url, part)
            if known_hash is not None and not _matches(part, known_hash):
                part.unlink()
                raise DatasetError(
                    f"{url} has not the known content (hash {known_hash}): it was changed, or "
                    f"damaged on the way. Try again, or {otherwise}."
                )
            with replacing(path) as temporary:
                _second_name(part, temporary)
            part.unlink()
    except OSError as error:  # requests' errors are OSErrors
        again = " The same command goes on with what has come." if part.is_file() else ""
        raise DatasetError(f"Cannot download {url}: {error}.{again} Or {otherwise}.") from error
    if known_hash is None:
        with replacing(record) as temporary:
            temporary.write_text(json.dumps({"url": url, "sha256": digest(path)}))


def check_known(path: Path, known_hash: str, title: str) -> None:
    """Refuse a user's copy of a published file that is not it.

    Raises:
        DatasetError: another checksum.
    """
    if not _matches(path, known_hash):
        raise DatasetError(
            f"{path} is not {title}: its checksum is not {known_hash}. Download it again, or "
            "unpack it and pass the folder, which is not compared."
        )


def _fetch(url: str, part: Path) -> None:
    """Append to a file what is missing of it.

    Raises:
        OSError: the server does not answer, refuses, or breaks off.
    """
    import requests

    there = part.stat().st_size if part.is_file() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={there}-"} if there else {})
    with requests.get(url, headers=headers, timeout=TIMEOUT, stream=True) as answer:
        if there and answer.status_code == requests.codes.requested_range_not_satisfiable:
            return  # nothing is missing; the checksum will tell
        answer.raise_for_status()
        answer.raw.enforce_content_length = False  # it would throw away what came before a break
        goes_on = answer.status_code == PARTIAL
        expected = answer.headers.get("Content-Length")
        came = 0
        with part.open("ab" if goes_on else "wb") as file:
            for piece in answer.iter_content(CHUNK):
                file.write(piece)
                came += len(piece)
    if expected is not None and came < int(expected):
        raise OSError(f"it broke off: {came} bytes read, {int(expected) - came} more expected")


def _second_name(file: Path, name: Path) -> None:
    try:
        os.link(file, name)
    except OSError:  # a file system without links
        shutil.copyfile(file, name)


def _matches(path: Path, known_hash: str) -> bool:
    algorithm, _, known = known_hash.partition(":")
    return digest(path, algorithm) == known.lower()


def digest(path: Path, algorithm: str = "sha256") -> str:
    """The hexadecimal checksum of a file."""
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
