"""Large artifacts: hashed in a thread, after their step has ended, with nothing waiting for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from tapps_agents_project import FIVE, Project, only_run
from tapps_otel import history
from tapps_otel.instrumentation import instrument
from tapps_otel.instrumentation.tapps_agents import resume
from tapps_otel.log import files
from tapps_otel.log.files import Files
from waiting import until

Story = Callable[..., list[str]]
Events = Callable[..., list[dict[str, Any]]]

CONTENT = b"0123456789abcdef" * (2 << 16)  # 2 MiB
DIGEST = "annotation s1 1 tapps.artifact.digest"


@pytest.fixture(autouse=True)
def _instrumented(_own_place: None) -> None:
    instrument("tapps_agents")


@pytest.fixture(autouse=True)
def _a_large_artifact(project: Project) -> None:
    async def write() -> Any:
        Path("requirements.md").write_bytes(CONTENT)
        return {}

    project.does["analyst"] = write
    project.write()


class HeldBack(Files):
    """Files that the thread which hashes can open only once it is allowed to."""

    def __init__(self) -> None:
        self.allowed = threading.Event()

    def open_read(self, path: Path) -> BinaryIO:
        if threading.current_thread().name == "tapps-otel-digests":
            self.allowed.wait()
        return super().open_read(path)


@contextmanager
def held_back() -> Iterator[threading.Event]:
    held = HeldBack()
    with files.use(held):
        try:
            yield held.allowed
        finally:
            held.allowed.set()


def digest_of(events: Events) -> dict[str, Any]:
    """Wait for the event that has the digest, and return it."""
    until(lambda: any(one.get("name") == "tapps.artifact.digest" for one in events()))
    (found,) = (one for one in events() if one.get("name") == "tapps.artifact.digest")
    return found


def artifact() -> dict[str, Any]:
    (found,) = history(only_run()).by_id["s1"].last.artifacts
    return found


def test_no_step_and_no_run_waits_for_a_digest(
    project: Project, story: Story, events: Events
) -> None:
    with held_back() as allowed:
        assert project.run().state.status == "completed"
        assert story() == [
            "workflow_start",
            *(f"{what} {step} 1" for step in FIVE for what in ("step_start", "step_finish")),
            "workflow_end completed",
        ]
        assert (artifact()["bytes"], "sha256" in artifact()) == (len(CONTENT), False)
        allowed.set()
        found = digest_of(events)

    assert story()[-1] == DIGEST
    assert (found["late"], found["step_id"]) == (True, "s1")
    assert found["attributes"] == {
        "path": "requirements.md",
        "sha256": sha256(CONTENT).hexdigest(),
    }
    assert artifact()["sha256"] == sha256(CONTENT).hexdigest()
    assert history(only_run()).status == "completed"


def test_a_digest_that_is_there_before_the_end_is_part_of_the_execution(
    project: Project, story: Story, events: Events
) -> None:
    async def wait() -> Any:
        allowed.set()
        await asyncio.to_thread(digest_of, events)
        return {}

    project.does["planner"] = wait
    with held_back() as allowed:
        project.run()

    assert story()[3:6] == ["step_start s2 1", DIGEST, "step_finish s2 1"]
    found = digest_of(events)
    assert "late" not in found
    assert found["span_id"] == events()[0]["span_id"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda path: path.write_bytes(CONTENT[1:] + b"!"), "it was changed before it was hashed"),
        (Path.unlink, "No such file"),
    ],
    ids=["changed", "deleted"],
)
def test_a_file_that_changes_before_it_is_hashed_gets_no_digest(
    project: Project, events: Events, change: Callable[[Path], object], reason: str
) -> None:
    with held_back() as allowed:
        project.run()
        change(Path("requirements.md"))
        allowed.set()
        found = digest_of(events)

    assert reason in found["attributes"]["reason"]
    assert "sha256" not in artifact()


@pytest.mark.parametrize("is_edited", [False, True])
def test_a_run_with_a_large_artifact_resumes(
    project: Project, is_edited: bool, caplog: pytest.LogCaptureFixture
) -> None:
    name = project.kill_in("architect")
    if is_edited:
        Path("requirements.md").write_bytes(CONTENT[::-1])
    before = project.did.all
    state = asyncio.run(resume(project.executor(), name))

    assert state.status == "completed"
    assert project.did.all == [*before, "architect", "ops", "documenter"]
    assert ("artifact requirements.md of step s1 has changed since" in caplog.text) is is_edited
