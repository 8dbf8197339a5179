"""A real Chromium without a window, told over a pipe what to do: it opens a page and says what is wrong with it."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
"""The program's path; None where there is none."""

# The protocol speaks on the descriptors 3 and 4 of the browser.
START = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)
COMPLAINTS = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")


class Tab:
    """A page in the browser. `complaints` are what it wrote to its console, `asked` what it asked the network for."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._replies = os.fdopen(read_fd, "rb")
        self._requests = os.fdopen(write_fd, "wb")
        self._said = b""
        self._number = 0
        self._loads = 0
        self._session: str | None = None
        self.complaints: list[str] = []
        self.asked: list[str] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol and its result."""
        self._number += 1
        asked = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            asked["sessionId"] = self._session
        self._requests.write(json.dumps(asked).encode() + b"\0")
        self._requests.flush()
        while True:
            told = self._next()
            if told.get("id") == self._number:
                assert "error" not in told, told["error"]
                result: dict[str, Any] = told["result"]
                return result

    def open(self, page: Path, *, width: int, height: int = 900, dark: bool = False) -> None:
        """Load a file into a view of this width and wait until it is there."""
        narrow = width < 600
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1 + narrow,
            mobile=narrow,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        loads = self._loads
        self.ask("Page.navigate", url=page.as_uri())
        while self._loads == loads:
            self._next()

    def value(self, script: str) -> Any:
        """What a script in the page comes to."""
        told = self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def picture(self, *, whole: bool = False) -> bytes:
        """The view as PNG, or the whole page."""
        return base64.b64decode(self.ask("Page.captureScreenshot", captureBeyondViewport=whole)["data"])

    def paper(self) -> bytes:
        """The page as PDF."""
        return base64.b64decode(self.ask("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)["data"])

    def close(self) -> None:
        """Let go of the pipe, which ends the browser."""
        self._requests.close()
        self._replies.close()

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._said:
            more = os.read(self._replies.fileno(), 1 << 20)
            assert more, "the browser has ended"
            self._said += more
        message, _, self._said = self._said.partition(b"\0")
        told: dict[str, Any] = json.loads(message)
        if told.get("method") == "Page.loadEventFired":
            self._loads += 1
        if told.get("method") in COMPLAINTS:
            self.complaints.append(json.dumps(told["params"]))
        if told.get("method") == "Network.requestWillBeSent":
            self.asked.append(told["params"]["request"]["url"])
        return told


@contextmanager
def a_tab(profile: Path) -> Iterator[Tab]:
    """A browser with a page, and a folder of its own for what it keeps."""
    assert BROWSER is not None
    to_browser, requests = os.pipe()
    replies, from_browser = os.pipe()
    arguments = [
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe"),
        *("--no-first-run", "--hide-scrollbars", f"--user-data-dir={profile}"),
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", START, str(to_browser), str(from_browser), BROWSER, *arguments],
        pass_fds=(to_browser, from_browser),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HOME": str(profile)},
    )
    os.close(to_browser)
    os.close(from_browser)
    try:
        tab = Tab(replies, requests)
        yield tab
        tab.close()
        process.wait(timeout=30)
    finally:
        process.kill()
        process.wait()
