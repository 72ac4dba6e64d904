"""``python tests/pictures.py [FOLDER]``: make the pictures of the documentation again.

They show what the project's own commands make of real runs: the demo, which is killed and resumed,
and some short ones beside it. Chromium photographs the pages. It photographs the demo's trace too
if a Jaeger with its user interface gets it: ``docker compose up -d --wait``, and
``OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4317`` in the environment.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from playwright.sync_api import Browser, Page

from browsers import open_browser
from commands import child
from documents import ROOT
from tapps_otel.run.queries import last_run, list_runs

PICTURES: Final = ROOT / "tapps_otel/docs/pictures"
_FLOW: Final = """
from tapps_otel import Backoff, step, workflow


@step(agent="reader")
def fetch(city: str) -> str:
    return city.lower()


@step(agent="writer", retries=1, backoff=Backoff(0.2))
def draft(page: str) -> str:
    if page == "atlantis":
        raise LookupError(f"nothing is known of {page}")
    return f"about {page}"


@workflow
def guide(cities: list[str]) -> list[str]:
    return [draft(fetch(city)) for city in cities]
"""
_GUIDES: Final = {
    "guide-north": '["Oslo", "Bergen", "Tromso"]',
    "guide-sea": '["Lisbon", "Atlantis"]',
    "guide-south": '["Rome", "Naples"]',
}


def main(folder: Path = PICTURES) -> int:
    """Make the pictures, and name them."""
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as place, chdir(place), open_browser() as browser:
        for path in _pictures(folder, browser):
            sys.stdout.write(f"{path}\n")
    return 0


def _pictures(folder: Path, browser: Browser) -> Iterator[Path]:
    yield _demo(folder / "demo.svg")
    run = _last_run()
    _run("timeline", run, "--html", "page.html")
    yield _page(browser, Path("page.html"), folder / "timeline-demo.png")
    _make_guides()
    names = [one.workflow_id for one in list_runs()]
    _run("timeline", *names, "--html", "pages")
    yield _page(browser, Path("pages/index.html"), folder / "runs-demo.png", height=420)
    if "OTEL_EXPORTER_OTLP_ENDPOINT" in os.environ:
        yield _trace(browser, run, folder / "jaeger-demo.png")


def _demo(path: Path) -> Path:
    _run("demo", "--svg", "demo.svg")
    path.write_bytes(Path("demo.svg").read_bytes())
    return path


def _make_guides() -> None:
    Path("guide.py").write_text(_FLOW, "utf-8")
    for name, cities in _GUIDES.items():
        ended = child("run", "guide.py:guide", "--id", name, "-i", f"[{cities}]", "-q")
        assert (ended.code == 1) == ("Atlantis" in cities), ended.err


def _page(browser: Browser, page: Path, picture: Path, *, height: int = 720) -> Path:
    opened = browser.new_page(viewport={"width": 1280, "height": height})
    opened.goto(page.absolute().as_uri())
    return _photograph(opened, picture)


def _trace(browser: Browser, run: str, picture: Path) -> Path:
    link = child("open", run)
    assert link.code == 0, link.err
    opened = browser.new_page(viewport={"width": 1500, "height": 900})
    opened.goto(link.out.strip())
    opened.get_by_text("step render").first.wait_for()
    return _photograph(opened, picture)


def _photograph(page: Page, picture: Path) -> Path:
    page.screenshot(path=picture, animations="disabled")
    page.close()
    return picture


def _run(*arguments: str) -> None:
    ended = child(*arguments)
    assert ended.code == 0, ended.err


def _last_run() -> str:
    run = last_run()
    assert run is not None
    return run.workflow_id


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:2])))
