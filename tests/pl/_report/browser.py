"""Chromium without a window, controlled over the pipe of its DevTools protocol."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import time
from contextlib import contextmanager

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-pipe"),
)
SECONDS = 60


def installed():
    """Return the path of a Chromium; None without."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Tab:
    """A page, and what happened in it: messages of the console, exceptions and requests."""

    def __init__(self, to_browser, from_browser):
        self.to_browser, self.from_browser = to_browser, from_browser
        self.number, self.session, self.unread, self.events = 0, None, b"", []

    def call(self, method, **parameters):
        """Send a command and return its result; keep the events that arrive before."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to_browser, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _read(self):
        while b"\0" not in self.unread:
            ready, _, _ = select.select([self.from_browser], [], [], SECONDS)
            assert ready, "no answer from Chromium"
            part = os.read(self.from_browser, 1 << 16)
            assert part, "Chromium ended"
            self.unread += part
        message, _, self.unread = self.unread.partition(b"\0")
        return json.loads(message)

    def open(self, url):
        """Open a page and wait until it is complete."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Log", "Runtime", "Network", "Page"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=url)
        end = time.monotonic() + SECONDS
        while self.run("location.href !== 'about:blank' && document.readyState") != "complete":
            assert time.monotonic() < end
            time.sleep(0.05)

    def run(self, script):
        """Return the value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key):
        """Press and release a key."""
        text = {"Enter": "\r", " ": " "}.get(key, "")
        code = {"Enter": 13, " ": 32, "Tab": 9}[key]
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, text=text, windowsVirtualKeyCode=code)

    def problems(self):
        """Return what the console and the page reported."""
        kinds = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [event for event in self.events if event.get("method") in kinds]

    def requests(self):
        """Return the addresses that were requested."""
        sent = [event for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]


@contextmanager
def tab(profile):
    """Start Chromium and yield a tab of it."""
    read, to_browser = os.pipe()
    from_browser, write = os.pipe()
    # the browser reads from descriptor 3 and writes to descriptor 4
    command = f'exec "$@" 3<&{read} 4>&{write}'
    process = subprocess.Popen(
        ["bash", "-c", command, "bash", installed(), *FLAGS, f"--user-data-dir={profile}"],
        pass_fds=(read, write),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(read)
    os.close(write)
    page = Tab(to_browser, from_browser)
    try:
        yield page
        page.session = None
        page.call("Browser.close")
        process.wait(SECONDS)
    finally:
        process.kill()
        process.wait()
        os.close(to_browser)
        os.close(from_browser)
