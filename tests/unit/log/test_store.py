"""The folder of runs: the list, summaries, and files of other programs."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

from logs import AT, ID, event, lines_of, start, story, write
from tapps_otel.errors import InvalidIdError, RunNotFoundError
from tapps_otel.log import files as log_files
from tapps_otel.log.event import MAX_LINE, Event, encode, genesis
from tapps_otel.log.files import FaultyFiles, Files
from tapps_otel.log.lease import Lease
from tapps_otel.log.store import RunSummary, Store
from tapps_otel.log.tail import older_lines
from tapps_otel.names import log_name


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def run(store: Store, workflow_id: str, *events: Event, at_ns: int = AT, **first: Any) -> Path:
    """A run whose file changed last at ``at_ns``."""
    path = store.log_path(workflow_id)
    write(path, [start(workflow_id, **first), *events], durability="os")
    os.utime(path, ns=(at_ns, at_ns))
    return path


def ids(store: Store, **filters: Any) -> list[str]:
    return [one.workflow_id for one in store.runs(**filters)]


# ---------------------------------------------------------------- one run


def test_a_summary_describes_the_run(store: Store) -> None:
    path = store.log_path(ID)
    data = write(path, story())

    assert store.summary(ID) == RunSummary(
        workflow_id=ID,
        workflow="article",
        status="failed",
        started_ns=AT,
        last_ns=AT,
        last_step="draft#3",
        last_step_event="step_fail",
        seq=7,
        size=len(data),
        execution=1,
        steps=2,
        steps_done=1,
    )


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled", "interrupted", "paused"])
def test_the_status_is_that_of_the_last_end(store: Store, status: str) -> None:
    run(store, ID, event("workflow_end", status="failed"), event("workflow_resume", execution=2),
        event("workflow_end", status=status, execution=2))  # fmt: skip

    assert (store.summary(ID).status, store.summary(ID).execution) == (status, 2)


AFTER_THE_END = [
    event("span", late=True),
    event("annotation"),
    event("step_fail", 9, status="cancelled"),
    event("step_finish", 9, late=True),
    event("log_gap"),
]


@pytest.mark.parametrize("more", AFTER_THE_END, ids=lambda one: str(one.event_type))
def test_what_comes_after_the_end_does_not_open_the_run_again(store: Store, more: Event) -> None:
    run(store, ID, event("step_start", 1), event("workflow_end", status="completed"), more)

    assert store.summary(ID).status == "completed"


@pytest.mark.parametrize("last", ["workflow_resume", "workflow_start"])
def test_a_resumed_run_is_interrupted_until_it_ends(store: Store, last: str) -> None:
    run(store, ID, event("workflow_end", status="failed"), event(last, execution=2))

    assert store.summary(ID).status == "interrupted"


def test_a_run_without_end_is_running_while_its_lease_is_held(store: Store) -> None:
    run(store, ID, event("step_start", 1))
    assert store.summary(ID).status == "interrupted"
    lease = Lease(store.lease_path(ID), ID)
    assert store.summary(ID).status == "running"
    lease.release()

    assert store.summary(ID).status == "interrupted"


def test_a_run_without_steps_has_no_last_step(store: Store) -> None:
    run(store, ID)

    assert (store.summary(ID).last_step, store.summary(ID).last_step_event) == (None, None)


@pytest.mark.parametrize("data", [b"", b'{"v":1,"se', b"\0" * 4096])
def test_a_run_that_was_killed_before_its_first_line_is_interrupted(
    store: Store, data: bytes
) -> None:
    store.log_path(ID).write_bytes(data)
    found = store.summary(ID)

    assert (found.status, found.seq, found.workflow, found.started_ns) == (
        "interrupted", 0, None, None,
    )  # fmt: skip


def test_a_torn_end_is_passed_over(store: Store) -> None:
    path = run(store, ID, event("step_start", 1), event("step_finish", 1))
    path.write_bytes(path.read_bytes()[:-10])

    assert (store.summary(ID).last_step_event, store.summary(ID).seq) == ("step_start", 2)


def test_a_start_behind_a_torn_and_declared_one_is_found(store: Store) -> None:
    path = store.log_path(ID)
    path.write_bytes(b'{"v":1,"seq":1,"event_type":"workf')
    write(path, [start(), *(event("annotation", "x" * 1000) for _ in range(200))])
    found = store.summary(ID)

    assert (found.workflow, found.started_ns, found.seq) == ("article", AT, 202)


def long_run(store: Store, *last: Event, between: int = 400) -> Path:
    """One whose start is far before its last 64 KiB."""
    filler = (event("annotation", "x" * 1000) for _ in range(between))
    return run(store, ID, event("step_start", 1), event("step_finish", 1), *filler, *last)


def test_the_last_step_of_a_long_run_is_looked_for_as_far_back_as_it_takes(store: Store) -> None:
    long_run(store)
    found = store.summary(ID)

    assert (found.last_step, found.last_step_event) == ("draft#1", "step_finish")
    assert (found.status, found.workflow, found.seq) == ("interrupted", "article", 403)


def test_an_end_far_back_counts(store: Store) -> None:
    path = store.log_path(ID)
    spans = (event("span", "x" * 1000, late=True) for _ in range(300))
    write(
        path, [start(), event("step_start", 1), event("workflow_end", status="completed"), *spans]
    )

    assert (store.summary(ID).status, store.summary(ID).last_step) == ("completed", "draft#1")


def test_a_last_line_longer_than_the_window_is_read(store: Store) -> None:
    long_run(store, event("step_start", 2), event("annotation", "x" * 900_000))
    found = store.summary(ID)

    assert (found.last_step, found.seq) == ("draft#2", 405)


def test_only_the_ends_of_a_long_log_are_read(store: Store) -> None:
    class Measured(Files):
        read = 0

        def read_at(self, descriptor: int, length: int, offset: int) -> bytes:
            data = super().read_at(descriptor, length, offset)
            self.read += len(data)
            return data

    steps = [event(kind, n) for n in range(2000) for kind in ("step_start", "step_finish")]
    path = run(store, ID, *steps)
    files = Measured()
    with log_files.use(files):
        found = store.summary(ID)

    assert (found.last_step, found.seq) == ("draft#1999", 4001)
    assert files.read <= 64 * 1024 + 64 < path.stat().st_size / 10


def test_the_summary_does_not_depend_on_where_the_window_starts(store: Store) -> None:
    pick = random.Random(7)
    for _ in range(40):
        sizes = [pick.choice([1, 100, 5_000, 70_000, 300_000]) for _ in range(pick.randrange(30))]
        steps = [event("step_start", n, name="x" * size) for n, size in enumerate(sizes)]
        run(store, ID, *steps)
        found = store.summary(ID)
        store.log_path(ID).unlink()

        assert found.status == "interrupted"
        assert found.seq == len(steps) + 1
        assert found.last_step == (steps[-1].step_id if steps else None)


def test_a_run_that_is_not_there_is_not_found(store: Store) -> None:
    with pytest.raises(RunNotFoundError, match=r"no run 'r' in .*`tapps-otel list`"):
        store.summary(ID)
    store.log_path(ID).write_bytes(b'{"somebody":"else"}\n')
    with pytest.raises(RunNotFoundError):
        store.summary(ID)


@pytest.mark.parametrize("workflow_id", ["..", "a/b", "", "a\0b", ".hidden", "x.events", "é"])
def test_an_id_that_cannot_be_a_file_is_refused_before_the_disk_is_asked(
    store: Store, workflow_id: str
) -> None:
    calls = (store.log_path, store.lease_path, store.blobs_folder, store.summary)
    for call in calls:
        with pytest.raises(InvalidIdError):
            call(workflow_id)


# ---------------------------------------------------------------- damage


def damaged(store: Store) -> RunSummary:
    found = store.summary(ID)
    assert [found] == list(store.runs(status="damaged"))
    assert str(store.log_path(ID)) in str(found.problem)
    return found


def test_damage_at_the_end_is_a_status_not_an_exception(store: Store) -> None:
    path = run(store, ID, event("step_start", 1), event("step_finish", 1))
    made = lines_of(path.read_bytes())
    path.write_bytes(made[0] + made[2])

    assert f"damaged at byte {len(made[0])}" in str(damaged(store).problem)


def test_damage_at_the_start_of_a_long_log_is_seen(store: Store) -> None:
    path = long_run(store)
    data = path.read_bytes()
    path.write_bytes(data[:100] + b"#" + data[101:])

    assert "damaged at byte 0, where seq 1 was expected" in str(damaged(store).problem)


def test_a_long_log_that_ends_in_megabytes_of_junk_is_damaged(store: Store) -> None:
    path = long_run(store)
    with path.open("ab") as file:
        file.truncate(path.stat().st_size + 40_000_000)

    assert "contain no line of a log" in str(damaged(store).problem)


def test_a_line_that_is_too_long_for_a_log_is_not_kept_in_memory(store: Store) -> None:
    path = store.log_path(ID)
    size = 2 * MAX_LINE
    path.write_bytes(b"first\n" + b"#" * size + b"\nlast\n")
    with log_files.system().open_read(path) as file:
        last, *others, first = older_lines(file.fileno(), path.stat().st_size)

    assert (first, last) == (b"first", b"last")
    assert max(map(len, others)) < size


def test_a_log_of_a_newer_format_is_named_as_such(store: Store) -> None:
    store.log_path(ID).write_bytes(b'{"v":2,"seq":1,"event_type":"workflow_start"}\n')

    assert "format version 2" in str(damaged(store).problem)


def test_what_cannot_be_opened_is_damaged(store: Store, tmp_path: Path) -> None:
    target = run(store, "target")
    store.log_path(ID).symlink_to(target)
    assert "cannot be read" in str(damaged(store).problem)
    store.log_path(ID).unlink()
    os.mkfifo(store.log_path(ID))
    assert "not a regular file" in str(damaged(store).problem)
    store.log_path(ID).unlink()
    store.log_path(ID).mkdir()
    assert "cannot be read" in str(damaged(store).problem)


@pytest.mark.parametrize("call", ["open_read", "size", "read_at"])
def test_an_error_of_the_disk_is_damaged(store: Store, call: str) -> None:
    run(store, ID)
    with log_files.use(FaultyFiles(call, error=5)):
        assert "Input/output error" in str(damaged(store).problem)


@pytest.mark.parametrize("text", ["", "yesterday", "2025-13-45T99:99:99.000000000Z", "9" * 400])
def test_an_invalid_time_is_unknown(store: Store, text: str) -> None:
    line, _ = encode(start(seq=1, timestamp=text), genesis(ID))
    store.log_path(ID).write_bytes(line)

    assert (store.summary(ID).started_ns, store.summary(ID).seq) == (None, 1)


@pytest.mark.parametrize("workflow", [{}, {"name": 7}, {"name": None}])
def test_a_workflow_without_name_has_none(store: Store, workflow: dict[str, Any]) -> None:
    line, _ = encode(event("workflow_start", seq=1, workflow=workflow), genesis(ID))
    store.log_path(ID).write_bytes(line)

    assert store.summary(ID).workflow is None


# ---------------------------------------------------------------- the list


def test_runs_come_newest_first(store: Store) -> None:
    for number in (3, 1, 2):
        run(store, f"run{number}", at_ns=AT + number)

    assert ids(store) == ["run3", "run2", "run1"]
    assert ids(store, last=2) == ["run3", "run2"]
    assert ids(store, last=0) == []
    assert store.last() == store.summary("run3")


def test_runs_are_filtered(store: Store) -> None:
    def end() -> Event:
        return event("workflow_end", status="completed")

    run(store, "a", end(), at_ns=AT + 1, name="build")
    run(store, "b", at_ns=AT + 2, name="build")
    run(store, "c", end(), at_ns=AT + 3, name="deploy")

    assert ids(store, status="completed") == ["c", "a"]
    assert ids(store, workflow="build") == ["b", "a"]
    assert ids(store, workflow="build", status="completed") == ["a"]
    assert ids(store, since_ns=AT + 2) == ["c", "b"]
    assert ids(store, status="completed", last=1) == ["c"]
    assert ids(store, status="paused") == []
    assert getattr(store.last("build"), "workflow_id", None) == "b"
    assert store.last("none") is None


def test_a_rare_run_is_found_behind_many_others(store: Store) -> None:
    for number in range(150):
        run(store, f"run{number}", at_ns=AT + number)
    run(store, "rare", event("workflow_end", status="paused"), at_ns=AT - 1)

    assert ids(store, status="paused", last=1) == ["rare"]
    assert len(ids(store, last=140)) == 140
    assert len(ids(store, status="interrupted", last=200)) == 150


def test_files_of_other_programs_are_ignored(store: Store, tmp_path: Path) -> None:
    run(store, "ours")
    foreign = {
        "r.events.jsonl": b'{"type":"workflow_start"}\n',
        "r+0123abcd.jsonl": b'{"v":1,"seq":1,"event_type":"span"',
        ".hidden.jsonl": b"",
        "other.jsonl": b'{"hello":1}\n',
        "notes.txt": b"x",
        "r.lease": b"{}",
        "spa ce.jsonl": b"",
    }
    for name, data in foreign.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "r.blobs").mkdir()

    assert ids(store) == ids(store, last=20) == ["ours"]
    assert {name: (tmp_path / name).read_bytes() for name in foreign} == foreign


def test_a_missing_folder_has_no_runs(tmp_path: Path) -> None:
    store = Store(tmp_path / "none")

    assert (list(store.runs()), store.last()) == ([], None)
    assert not (tmp_path / "none").exists()


def test_a_run_that_is_removed_during_the_listing_is_left_out(store: Store) -> None:
    for number in range(3):
        run(store, f"run{number}", at_ns=AT + number)
    found = store.runs()
    assert next(found).workflow_id == "run2"
    store.log_path("run1").unlink()

    assert [one.workflow_id for one in found] == ["run0"]


def test_only_the_runs_that_are_asked_for_are_opened(store: Store) -> None:
    for number in range(30):
        run(store, f"run{number}", at_ns=AT + number)
    files = FaultyFiles("open_read", nth=10**6)
    with log_files.use(files):
        assert len(ids(store, last=5)) == 5

    assert files.calls <= 10  # each its log, and its lease


# ---------------------------------------------------------------- logs of other processes


def test_side_logs_are_found_by_their_run(store: Store, tmp_path: Path) -> None:
    for name in ("r+0123abcd", "r+00000000", "x+ffffffff"):
        (tmp_path / f"{name}.jsonl").touch()
    for name in ("r.jsonl", "r+0123ABCD.jsonl", "r+123.jsonl", "+0123abcd.jsonl", "r+0123abcd.txt"):
        (tmp_path / name).touch()

    assert store.side_paths() == {
        "r": [tmp_path / "r+00000000.jsonl", tmp_path / "r+0123abcd.jsonl"],
        "x": [tmp_path / "x+ffffffff.jsonl"],
    }


def test_a_new_side_log_has_a_name_of_its_own(store: Store) -> None:
    first, second = store.new_side_path("r"), store.new_side_path("r")
    assert first != second
    first.touch()

    assert store.side_paths() == {"r": [first]}


def test_the_files_of_a_run_are_in_the_folder(store: Store, tmp_path: Path) -> None:
    found = [store.log_path("r"), store.lease_path("r"), store.blobs_folder("r")]

    assert found == [tmp_path / "r.jsonl", tmp_path / "r.lease", tmp_path / "r.blobs"]
    assert store.ledger_path("r") == tmp_path / "r.ledger"


def test_a_log_is_found_by_the_id_that_a_third_party_executor_gave_its_run(store: Store) -> None:
    with pytest.raises(InvalidIdError):
        store.name_of("their own/id")
    name = log_name("their own/id")
    write(store.log_path(name), [start("their own/id")])

    assert store.name_of("their own/id") == name
    assert store.name_of("r") == "r"
    assert (store.has_log(name), store.has_log("r")) == (True, False)
    store.log_path("r").touch()
    assert not store.has_log("r")
