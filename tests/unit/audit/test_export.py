"""What holds for every format: damage, runs that go on, logs beside, memory, files."""

from __future__ import annotations

import os
import stat
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import programs
from commands import environment
from export_formats import request_of, trace_of
from logs import AT, forge
from tapps_otel import clock
from tapps_otel.audit.export import FORMATS, Export, Format, save
from tapps_otel.errors import LogDamagedError, LogVersionError, RunNotFoundError
from tapps_otel.log import files as log_files
from tapps_otel.log import lease
from tapps_otel.log.files import FaultyFiles, NotRegularFileError
from tapps_otel.log.store import Store

STORE = Store(Path("logs"))
TRACE, ROOT = "4b" * 16, "0c" * 8
every_format = pytest.mark.parametrize("form", FORMATS)


def steps(count: int) -> Iterator[dict[str, Any]]:
    """A run of so many steps."""
    root = {"trace_id": TRACE, "span_id": ROOT}
    yield {**root, "event_type": "workflow_start", "workflow": {"name": "w"}}
    for n in range(1, count + 1):
        step = {"trace_id": TRACE, "span_id": f"{n:016x}", "parent_span_id": ROOT}
        step |= {"step_id": f"s#{n}", "step": "s", "timestamp": clock.timestamp(AT + n)}
        yield {**step, "event_type": "step_start"}
        yield {**step, "event_type": "step_finish", "status": "completed", "duration_ns": 1}
    yield {**root, "event_type": "workflow_end", "status": "completed", "duration_ns": 9}


def read(form: Format, text: str) -> int:
    """How many spans, or events, a reader of the format finds; it accepts every byte."""
    if form == "csv":
        heading, *rows, end = text.split("\r\n")
        assert heading.startswith("seq,")
        assert end == ""
        return len(rows)
    if form == "chrome-trace":
        return len(trace_of(text).slices)
    return sum(
        len(of_scope.spans)
        for line in text.splitlines(keepends=True)
        for of_resource in request_of(line).resource_spans
        for of_scope in of_resource.scope_spans
    )


def damage(path: Path, line: int) -> None:
    """Change a byte in this line, from 0."""
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line] = lines[line].replace(b"0c0c", b"0d0c", 1)
    path.write_bytes(b"".join(lines))


def taken(export: Export) -> tuple[str, Exception | None]:
    """The text, and the error that it ends in."""
    pieces: list[str] = []
    try:
        pieces.extend(export)  # what came before the error stays
    except (LogDamagedError, LogVersionError) as error:
        return "".join(pieces), error
    return "".join(pieces), None


# ---------------------------------------------------------------- logs


@every_format
def test_everything_before_the_damage_is_exported(form: Format) -> None:
    damage(forge(Path("logs"), "r", steps(300)), 501)
    export = Export(STORE, "r", form)
    text, error = taken(export)

    assert isinstance(error, LogDamagedError)
    assert error.seq == 502
    assert read(form, text) == export.count == (501 if form == "csv" else 250)


@every_format
def test_an_unknown_run_is_an_error(form: Format) -> None:
    with pytest.raises(RunNotFoundError, match="no run 'r'"):
        list(Export(STORE, "r", form))


@every_format
def test_a_file_of_another_program_is_not_a_run(form: Format) -> None:
    Path("logs").mkdir()
    Path("logs/r.jsonl").write_text('{"some": "thing"}\n')

    with pytest.raises(RunNotFoundError, match="no run 'r'"):
        list(Export(STORE, "r", form))


@every_format
def test_an_empty_log_is_a_run_without_content(form: Format) -> None:
    Path("logs").mkdir()
    Path("logs/r.jsonl").touch()
    text, error = taken(Export(STORE, "r", form))

    assert error is None
    assert read(form, text) == 0


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match="'xml' is not one of otlp-json, chrome-trace, csv"):
        Export(STORE, "r", "xml")  # type: ignore[arg-type]


@every_format
def test_of_a_run_in_progress_what_has_ended_is_exported(form: Format) -> None:
    forge(Path("logs"), "r", list(steps(3))[:-2])
    held = lease.Lease(STORE.lease_path("r"), "r")
    export = Export(STORE, "r", form)
    try:
        text = "".join(export)
    finally:
        held.release()

    assert read(form, text) == (6 if form == "csv" else 2)
    assert export.running is (form != "csv")
    assert export.problems == []


@every_format
def test_of_a_killed_run_open_spans_are_exported_too(form: Format) -> None:
    path = forge(Path("logs"), "r", list(steps(3))[:-2])
    with path.open("ab") as file:
        file.write(b'{"v":1,"seq":7,"ev')
    export = Export(STORE, "r", form)

    assert read(form, "".join(export)) == (6 if form == "csv" else 4)
    assert not export.running


@every_format
def test_side_logs_are_exported_too(form: Format) -> None:
    forge(Path("logs"), "r", steps(2))
    path = Path("logs/r+0123abcd.jsonl")
    span = {"event_type": "span", "name": "GET", "trace_id": TRACE, "otel": {}}
    made = forge(Path("beside"), "r", [{**span, "span_id": "0e" * 8, "duration_ns": 1}])
    made.rename(path)
    text = "".join(Export(STORE, "r", form))

    assert read(form, text) == (7 if form == "csv" else 4)
    assert "GET" in text
    path_alone = Path("logs/r.jsonl")
    path_alone.unlink()
    assert read(form, "".join(Export(STORE, "r", form))) == 1


@every_format
def test_a_log_of_a_newer_format_is_refused(form: Format) -> None:
    Path("logs").mkdir()
    Path("logs/r.jsonl").write_text('{"v":2,"seq":1,"x":1}\n')
    text, error = taken(Export(STORE, "r", form))

    assert isinstance(error, LogVersionError)
    assert read(form, text) == 0


@pytest.mark.exhaustive
@every_format
def test_memory_does_not_grow_with_the_log(form: Format) -> None:
    peaks = []
    for count in (10, 400, 1600):
        forge(Path("logs"), "r", steps(count))
        tracemalloc.start()
        for _ in Export(STORE, "r", form):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    # Four times as much; how much waits for the garbage collector differs by some 200 kB.
    assert peaks[2] < 1.6 * peaks[1]


# ---------------------------------------------------------------- files


def exported(path: str = "out", *, replace: bool = False, form: Format = "csv") -> None:
    save(Export(STORE, "r", form), Path(path), replace=replace)


def names() -> list[str]:
    """Of what is in the working directory."""
    return sorted(path.name for path in Path().iterdir())


@pytest.fixture
def log() -> Path:
    return forge(Path("logs"), "r", steps(5))


@every_format
def test_a_file_has_the_text_of_the_export(log: Path, form: Format) -> None:
    exported(form=form)

    assert Path("out").read_bytes() == "".join(Export(STORE, "r", form)).encode()
    assert stat.S_IMODE(Path("out").stat().st_mode) == 0o600
    assert names() == ["logs", "out"]


def test_an_existing_file_is_kept(log: Path) -> None:
    Path("out").write_text("mine")
    with pytest.raises(FileExistsError, match="a file of that name exists: 'out'"):
        exported()

    assert Path("out").read_text() == "mine"
    exported(replace=True)
    assert Path("out").read_text().startswith("seq,")


def test_a_file_created_meanwhile_is_kept(log: Path) -> None:
    class Slow(Export):
        def __iter__(self) -> Iterator[str]:
            yield from super().__iter__()
            Path("out").write_text("mine")

    with pytest.raises(FileExistsError):
        save(Slow(STORE, "r", "csv"), Path("out"))

    assert Path("out").read_text() == "mine"
    assert names() == ["logs", "out"]


@pytest.mark.parametrize("made", ["folder", "fifo", "link"])
def test_only_a_regular_file_is_replaced(log: Path, made: str) -> None:
    if made == "folder":
        Path("out").mkdir()
    elif made == "fifo":
        os.mkfifo("out")
    else:
        Path("out").symlink_to("target")
    for replace in (False, True):
        with pytest.raises(NotRegularFileError, match="not a regular file: 'out'"):
            exported(replace=replace)

    assert names() == ["logs", "out"]


def test_no_log_is_ever_replaced(log: Path) -> None:
    before = log.read_bytes()
    Path("elsewhere").symlink_to("logs")
    for place in ("logs/r.jsonl", "elsewhere/r.jsonl", "logs/../logs/r.jsonl"):
        with pytest.raises(FileExistsError):
            exported(place, replace=True)

    assert log.read_bytes() == before
    exported("logs/r.csv", replace=True)
    assert Path("logs/r.csv").read_text().startswith("seq,")


def test_a_missing_folder_is_named_and_not_created(log: Path) -> None:
    with pytest.raises(FileNotFoundError, match="'no/out'"):
        exported("no/out")

    assert names() == ["logs"]


def test_damage_leaves_a_file_of_what_comes_before_it(log: Path) -> None:
    damage(log, 7)
    with pytest.raises(LogDamagedError, match="where seq 8 was expected"):
        exported(form="otlp-json")

    assert read("otlp-json", Path("out").read_text()) == 3


def test_with_nothing_before_the_damage_there_is_no_file(log: Path) -> None:
    damage(log, 0)
    with pytest.raises(LogDamagedError):
        exported()

    assert names() == ["logs"]


def test_a_full_disk_leaves_no_partial_file(log: Path) -> None:
    with log_files.use(FaultyFiles("sync")), pytest.raises(OSError, match="No space"):
        exported()

    assert names() == ["logs"]


KILLED = """
import os, signal
from pathlib import Path
from tapps_otel.audit.export import Export, save
from tapps_otel.log.store import Store

class Dying(Export):
    def __iter__(self):
        yield "x" * 1_000_000
        os.kill(os.getpid(), signal.SIGKILL)

save(Dying(Store(Path("logs")), "r", "csv"), Path("out"))
"""


def test_a_kill_leaves_no_partial_file_under_the_name(log: Path) -> None:
    done = programs.run([sys.executable, "-c", KILLED], env=environment(), check=False)

    assert done.returncode == -9
    assert not Path("out").exists()
    exported()
