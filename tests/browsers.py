"""Pages in a real browser, opened from the disk, and what they do beside showing themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from capabilities import chromium

# A name that would run, load or draw something if it were markup.
EVIL = "</script><img src=x onerror=alert(1)><b>bold</b>open1\x1b[2J\u202e"


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Start the Chromium that is installed."""
    with sync_playwright() as driver:
        # Root may start it only without its sandbox; the pages are our own.
        options = ["--no-sandbox", "--disable-dev-shm-usage"]  # containers have little of it
        opened = driver.chromium.launch(executable_path=chromium(), args=options)
        yield opened
        opened.close()


class Look:
    """A page that is open, and what it did beside showing itself.

    :ivar noises: messages of its console, errors, dialogs, requests, violations of its policy
    """

    def __init__(self, browser: Browser, **options: Any) -> None:
        options = {"viewport": {"width": 1280, "height": 800}} | options
        self.page: Page = browser.new_page(**options)
        self.noises: list[str] = []
        self.page.on("console", lambda message: self.noises.append(message.text))
        self.page.on("pageerror", lambda error: self.noises.append(str(error)))
        self.page.on("dialog", lambda dialog: self.noises.append(dialog.message))
        self.page.on("request", lambda request: self._requested(request.url))
        self.page.add_init_script(
            "document.addEventListener('securitypolicyviolation',"
            " (event) => console.log('violation', event.violatedDirective))"
        )
        self._files: set[str] = set()

    def _requested(self, url: str) -> None:
        if url not in self._files:
            self.noises.append(f"request of {url}")

    def may_open(self, *paths: Path) -> None:
        """Allow files to be requested: a link leads there."""
        self._files.update(path.absolute().as_uri() for path in paths)

    def open(self, path: Path) -> Page:
        """Open a file."""
        self.may_open(path)
        self.page.goto(path.absolute().as_uri())
        return self.page
