"""Fixtures of whole programs: a collector for what they send, and one that hangs."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser

import programs
from browsers import Look, open_browser
from capabilities import need
from commands import environment
from otlp_collector import Collector, Ended, Program, Sink, serving, start_agent
from stack import Stack, stack_up


@pytest.fixture
def another(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Collector]]:
    """Starts collectors of this test's own."""
    need("rotel")
    with ExitStack() as stack:
        yield lambda: stack.enter_context(running(tmp_path_factory.mktemp("collector")))


@pytest.fixture
def collector(another: Callable[[], Collector]) -> Collector:
    """A collector of this test's own."""
    return another()


@contextmanager
def running(folder: Path) -> Iterator[Collector]:
    """A collector. Its folder is not the test's, whose files are watched."""
    with serving(Sink()) as sink:
        process, made = start_agent(folder, sink)
        try:
            yield made
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def shared_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Collector and Jaeger for all tests that leave them running: each has runs of its own."""
    need("stack")
    folder = tmp_path_factory.mktemp("stack")
    with stack_up(folder, folder / "no-logs") as stack:
        yield stack


@pytest.fixture
def own_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Collector and Jaeger of this test's own, which it may kill."""
    need("stack")
    folder = tmp_path_factory.mktemp("stack")
    with stack_up(folder, folder / "no-logs") as stack:
        yield stack


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Run a Python program in the test's folder, with these variables."""
    path = tmp_path / "program.py"

    def run(source: str, *arguments: str, **env: str) -> Ended:
        path.write_text(source, "utf-8")
        done = programs.run(
            [sys.executable, str(path), *arguments],
            cwd=tmp_path,
            env=environment(**env),
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def refusing() -> Iterator[str]:
    """The address of a collector that is down."""
    with socket.socket() as bound:  # bound, and not listening
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for the tests of a module."""
    need("chromium")
    with open_browser() as opened:
        yield opened


@pytest.fixture
def look(browser: Browser) -> Iterator[Look]:
    """A page, which must make no request, log nothing and break no rule of its policy."""
    opened = Look(browser)
    yield opened
    opened.page.close()
    assert opened.noises == []


@pytest.fixture
def hole() -> Iterator[tuple[str, list[socket.socket]]]:
    """A server that accepts and never answers: its address, and its connections."""
    listening = socket.create_server(("127.0.0.1", 0))
    came: list[socket.socket] = []

    def accept() -> None:
        try:
            while True:
                came.append(listening.accept()[0])
        except OSError:  # closed at the end of the test
            pass

    thread = threading.Thread(target=accept)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}", came
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join()
    for one in came:
        one.close()
