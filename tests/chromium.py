"""A headless Chromium that tests look at pages with, driven over its debugging pipe."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Self

NAMES = ("chromium", "chromium-browser", "google-chrome")
TIMEOUT = 120.0  # seconds; software drawing on a busy machine


def find_chromium() -> str | None:
    """Return the program, if there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page of a headless Chromium; close it by `with`.

    Attributes:
        problems: errors of the console, exceptions, and what the policy of a page refused.
        requests: addresses that the page asked for.
    """

    def __init__(self, width: int = 1280, height: int = 900) -> None:
        program = find_chromium()
        assert program is not None
        self.problems: list[str] = []
        self.requests: list[str] = []
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._process, self._send, self._receive = _start(program, self._profile.name)
        self._buffer, self._number = b"", 0
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session: str | None = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")
        self.resize(width, height)

    _session: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._send)  # Chromium ends with its pipe
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
        os.close(self._receive)
        self._profile.cleanup()

    def open(self, path: Path) -> None:
        """Open a file and wait until its scripts have run."""
        self._loaded = False
        self._call("Page.navigate", url=path.absolute().as_uri())
        end = time.monotonic() + TIMEOUT
        while not self._loaded and time.monotonic() < end:
            self._read(1.0)
        assert self._loaded, f"{path} was not loaded"

    def resize(self, width: int, height: int, scale: float = 1) -> None:
        """Change the size of the window in pixels."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                   deviceScaleFactor=scale, mobile=width < 600)  # fmt: skip

    def colours(self, scheme: str) -> None:
        """Prefer "light" or "dark"."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self._call("Emulation.setEmulatedMedia", features=[feature])

    def run(self, script: str) -> Any:
        """Return the value of an expression, awaited if it is a promise.

        Raises:
            AssertionError: it raised.
        """
        done = self._call("Runtime.evaluate", expression=script, awaitPromise=True,
                          returnByValue=True, userGesture=True)  # fmt: skip
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + TIMEOUT
        while not self.run(condition):
            assert time.monotonic() < end, f"it did not come true: {condition}"
            time.sleep(0.1)

    def click(self, selector: str) -> None:
        """Click with the mouse into the middle of an element."""
        place = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect();"
            "return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        where: dict[str, Any] = {"x": place[0], "y": place[1], "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, **where)

    def key(self, name: str, code: int) -> None:
        """Press a key, such as ("ArrowDown", 40)."""
        for kind in ("rawKeyDown", "keyUp"):
            self._call("Input.dispatchKeyEvent", type=kind, key=name, windowsVirtualKeyCode=code)

    def write(self, selector: str, text: str) -> None:
        """Replace the text of an input."""
        self.run(f"document.querySelector({json.dumps(selector)}).value = ''")
        self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        self._call("Input.insertText", text=text)

    def downloads_into(self, folder: Path) -> None:
        """Keep what is downloaded."""
        session, self._session = self._session, None
        self._call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
        self._session = session

    def picture(self, path: Path, selector: str = "", whole: bool = False) -> None:
        """Write a PNG of the window, of an element, or of the whole page."""
        more: dict[str, Any] = {}
        if selector:
            box = self.run(
                f"(() => {{ const r = document.querySelector({json.dumps(selector)})"
                ".getBoundingClientRect(); return {x: r.x + scrollX, y: r.y + scrollY,"
                "width: r.width, height: r.height, scale: 1}; })()"
            )
            more = {"clip": box, "captureBeyondViewport": True}
        elif whole:
            size = self._call("Page.getLayoutMetrics")["cssContentSize"]
            more = {"clip": {**size, "scale": 1}, "captureBeyondViewport": True}
        data = self._call("Page.captureScreenshot", format="png", **more)["data"]
        path.write_bytes(base64.b64decode(data))

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._send, data) :]
        end = time.monotonic() + TIMEOUT
        while time.monotonic() < end:
            for answer in self._read(1.0):
                if answer.get("id") == self._number:
                    assert "error" not in answer, f"{method}: {answer['error']}"
                    result: dict[str, Any] = answer["result"]
                    return result
        raise AssertionError(f"{method}: no answer")

    def _read(self, seconds: float) -> list[dict[str, Any]]:
        """Take what has come by then; events are looked at here."""
        if not select.select([self._receive], [], [], seconds)[0]:
            return []
        data = os.read(self._receive, 1 << 20)
        assert data, "Chromium has ended"
        *whole, self._buffer = (self._buffer + data).split(b"\0")
        messages = [json.loads(each) for each in whole]
        for message in messages:
            self._note(message.get("method", ""), message.get("params", {}))
        return messages

    def _note(self, event: str, params: dict[str, Any]) -> None:
        if event == "Page.loadEventFired":
            self._loaded = True
        elif event == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(params["exceptionDetails"])[:1000])
        elif event == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            self.problems.append(json.dumps(params["args"])[:1000])
        elif event == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.problems.append(params["entry"]["text"])


_LAUNCH = """
import os, sys
pair = [os.dup(int(each)) for each in sys.argv[1:3]]
for place, each in zip((3, 4), pair):
    os.dup2(each, place)
    os.set_inheritable(place, True)  # where it had that number already
os.execvp(sys.argv[3], sys.argv[3:])
"""


def _start(program: str, profile: str) -> tuple[subprocess.Popen[bytes], int, int]:
    """Start Chromium with its file descriptors 3 and 4 as the pipe."""
    to_read, send = os.pipe()
    receive, to_write = os.pipe()
    command = [
        program, "--headless=new", "--no-sandbox", "--remote-debugging-pipe", "--no-first-run",
        "--disable-dev-shm-usage", "--disable-extensions", "--disable-background-networking",
        "--use-angle=swiftshader", "--enable-unsafe-swiftshader", f"--user-data-dir={profile}",
    ]  # fmt: skip
    # By another interpreter: code between fork and exec could meet another thread's lock.
    launcher = [sys.executable, "-c", _LAUNCH, str(to_read), str(to_write), *command]
    process = subprocess.Popen(launcher, pass_fds=(to_read, to_write), stderr=subprocess.DEVNULL)
    os.close(to_read)
    os.close(to_write)
    return process, send, receive
