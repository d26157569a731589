"""Downloads from the Hugging Face hub, against a small hub on this machine's loopback."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("huggingface_hub", reason='needs the extra "hub"')
COMMIT = "0123456789abcdef0123456789abcdef01234567"
LOAD = """
import json, sys, warnings
from adit_model.checkpoints import pretrained
from adit_model.checkpoints.folder import CheckpointError
warnings.simplefilter("ignore")
for name in sys.argv[1:]:
    try:
        config, _, identity = pretrained.read(name)
        print(json.dumps([config.name, identity, config.provenance["source"]]))
    except CheckpointError as error:
        print("CheckpointError:", error)
"""
WRONG = {
    "hf:authors/none": "No repository 'authors/none'",
    "hf:authors/adit@v9": "No revision 'v9'",
    "hf:authors/adit:ckpts/b.ckpt": "No file 'ckpts/b.ckpt'",
    "hf:authors": "The form is hf:OWNER/REPOSITORY",
    "hf:": "The form is hf:OWNER/REPOSITORY",
    "hf:auth--ors/x..y": "cannot be downloaded",
}


class Hub:
    """One repository, `authors/adit`, with one file at one commit."""

    def __init__(self, content: bytes) -> None:
        self.requests: list[tuple[str, str, str | None]] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(body=False)

            def do_GET(self) -> None:
                self.answer(body=True)

            def answer(self, body: bool) -> None:
                hub.requests.append((self.command, self.path, self.headers.get("Range")))
                code = hub.status(self.path)
                start = 0
                if span := re.match(r"bytes=(\d+)-", self.headers.get("Range") or ""):
                    start, code = int(span[1]), 206 if code == 200 else code
                data = content[start:] if code in (200, 206) else b"{}"
                self.send_response(code)
                if code >= 400:
                    name = {404: "RepoNotFound"}.get(code, "")
                    if "/authors/adit/" in self.path:
                        known = f"/resolve/{COMMIT}/" in self.path or "/resolve/main/" in self.path
                        name = "EntryNotFound" if known else "RevisionNotFound"
                    self.send_header("X-Error-Code", name)
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
                self.send_header("Accept-Ranges", "bytes")
                if code == 206:
                    end = len(content) - 1
                    self.send_header("Content-Range", f"bytes {start}-{end}/{len(content)}")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if body:
                    self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @staticmethod
    def status(path: str) -> int:
        places = {f"/authors/adit/resolve/{at}/ckpts/ldm.ckpt" for at in ("main", COMMIT)}
        return 200 if path.split("?")[0] in places else 404


@pytest.fixture(scope="module")
def hub(toy_file: Path) -> Iterator[Hub]:
    server = Hub(toy_file.read_bytes())
    yield server
    server.server.shutdown()


def load(names: list[str], cache: Path, hub: Hub | None) -> list[str]:
    """One line a name, from a process of its own: the library reads its settings at import."""
    settings = {
        "HF_HOME": str(cache),
        "HF_ENDPOINT": hub.url if hub else "http://127.0.0.1:9",
        "HF_HUB_OFFLINE": "0" if hub else "1",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    command = [sys.executable, "-c", LOAD, *names]
    environment = {**os.environ, **settings}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return done.stdout.splitlines()


def test_download_cache_offline_and_pinned_revision(hub: Hub, tmp_path: Path) -> None:
    first, *wrong = load(["hf:authors/adit", *WRONG], tmp_path, hub)
    assert f'"hf:authors/adit@{COMMIT}:ckpts/ldm.ckpt"' in first
    got = {path.split("?")[0] for method, path, _ in hub.requests if method == "GET"}
    files = {path for path in got if "resolve" in path and hub.status(path) == 200}
    assert len(files) == 1  # only the file that is needed
    for line, words in zip(wrong, WRONG.values(), strict=True):
        assert words in line
    pinned = f"hf:authors/adit@{COMMIT}"
    offline = load(["hf:authors/adit", pinned, "hf:authors/adit@0.1"], tmp_path, None)
    assert offline[:2] == [first, first]
    assert "is not in the local cache" in offline[2]
