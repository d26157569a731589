"""Downloads from a server here that is sound, breaks off, goes on, or sends something else."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from adit_plugins.datasets import DatasetError
from adit_plugins.datasets.download import check_known, download

CONTENT = b"ten bytes."
KNOWN = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


class Served(BaseHTTPRequestHandler):
    """Ten bytes; the first answer of `/cut` is four of them, `/whole` knows no ranges."""

    asked: list[tuple[str, str | None]] = []  # noqa: RUF012

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.asked.append((self.path, wanted))
        if self.path == "/missing":
            self.send_error(404)
            return
        match = re.fullmatch(r"bytes=(\d+)-", wanted or "")
        start = int(match[1]) if match and not self.path.startswith("/whole") else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        cut = self.path in ("/cut", "/whole-cut") and wanted is None
        body = b"other text"[start:] if self.path == "/other" else CONTENT[start:]
        self.wfile.write(body[:4] if cut else body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    Served.asked = []
    with HTTPServer(("127.0.0.1", 0), Served) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_download_that_changed_is_noticed(tmp_path: Path, server: str) -> None:
    copy = tmp_path / "cache" / "copy.csv"
    download(f"{server}/data", copy)
    download(f"{server}/data", copy)  # the record agrees
    assert len(Served.asked) == 1
    copy.write_text("tampered")
    with pytest.raises(DatasetError, match="changed since its first use"):
        download(f"{server}/data", copy)
    assert sorted(path.name for path in copy.parent.iterdir()) == ["copy.csv", "copy.sha256.json"]


def test_a_download_of_known_content_is_checked(tmp_path: Path, server: str) -> None:
    download(f"{server}/data", tmp_path / "data.csv", KNOWN)
    (tmp_path / "data.csv").write_text("tampered")
    download(f"{server}/data", tmp_path / "data.csv", KNOWN)  # and fetched again
    assert (tmp_path / "data.csv").read_bytes() == CONTENT
    for path, known in (("data", f"md5:{'0' * 32}"), ("other", KNOWN)):
        with pytest.raises(DatasetError, match=r"not the known content.*--source"):
            download(f"{server}/{path}", tmp_path / "new.csv", known)
    assert [path.name for path in tmp_path.iterdir()] == ["data.csv"]
    check_known(tmp_path / "data.csv", KNOWN, "the set")
    (tmp_path / "data.csv").write_text("tampered")
    with pytest.raises(DatasetError, match="is not the set"):
        check_known(tmp_path / "data.csv", KNOWN, "the set")


@pytest.mark.parametrize("known", [KNOWN, None])
def test_what_broke_off_is_gone_on_with(tmp_path: Path, server: str, known: str | None) -> None:
    path = tmp_path / "data.csv"
    with pytest.raises(DatasetError, match=r"4 bytes read, 6 more.*same command goes on"):
        download(f"{server}/cut", path, known)
    assert [each.name for each in tmp_path.iterdir()] == ["data.csv.part"]
    download(f"{server}/cut", path, known)
    assert path.read_bytes() == CONTENT
    assert Served.asked == [("/cut", None), ("/cut", "bytes=4-")]
    assert not (tmp_path / "data.csv.part").exists()


def test_a_server_without_ranges_sends_all_again(tmp_path: Path, server: str) -> None:
    path = tmp_path / "data.csv"
    with pytest.raises(DatasetError, match="4 bytes read"):
        download(f"{server}/whole-cut", path, KNOWN)
    download(f"{server}/whole-cut", path, KNOWN)
    assert path.read_bytes() == CONTENT


def test_what_was_killed_before_its_name_is_not_fetched_again(tmp_path: Path, server: str) -> None:
    (tmp_path / "data.csv.part").write_bytes(CONTENT)
    download(f"{server}/data", tmp_path / "data.csv", KNOWN)
    assert [each.name for each in tmp_path.iterdir()] == ["data.csv"]


def test_a_part_of_something_else_is_not_kept(tmp_path: Path, server: str) -> None:
    (tmp_path / "data.csv.part").write_bytes(b"foul")
    with pytest.raises(DatasetError, match="not the known content"):
        download(f"{server}/data", tmp_path / "data.csv", KNOWN)
    download(f"{server}/data", tmp_path / "data.csv", KNOWN)


def test_a_download_that_is_not_there_is_told(tmp_path: Path, server: str) -> None:
    with pytest.raises(DatasetError, match=r"404.*--source"):
        download(f"{server}/missing", tmp_path / "data.csv")
    with pytest.raises(DatasetError, match="Cannot download"):
        download("http://127.0.0.1:9/data", tmp_path / "data.csv")
    assert list(tmp_path.iterdir()) == []
