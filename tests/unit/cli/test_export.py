from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import get_args

import pytest

import programs
from commands import LOGS, Cli, child, command, environment, on_terminal
from export_formats import request_of, trace_of
from logs import forge
from tapps_otel.audit.export import FORMATS, Format
from tapps_otel.cli.app import ExportFormat
from tapps_otel.log.lease import Lease

pytestmark = pytest.mark.slow  # most of them start processes

every_format = pytest.mark.parametrize("form", FORMATS)


@pytest.fixture
def run(cli: Cli) -> str:
    """A completed run of four spans and ten events."""
    cli("run", "flow.py:wide", "--id", "r")
    return "r"


def damage(line: int) -> None:
    path = LOGS / "r.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line] = lines[line].replace(b'"execution":1', b'"execution":7')
    path.write_bytes(b"".join(lines))


def test_the_command_offers_what_the_library_has() -> None:
    assert tuple(one.value for one in ExportFormat) == get_args(Format) == FORMATS


@every_format
def test_a_run_goes_to_standard_output(cli: Cli, run: str, form: str) -> None:
    done = cli("export", run, "--format", form)

    assert (done.code, done.err) == (0, "")
    if form == "csv":
        assert len(done.out.splitlines()) == 10
    elif form == "chrome-trace":
        assert [one.name for one in trace_of(done.out).named("workflow wide")] == ["workflow wide"]
    else:
        request_of(done.out)


@every_format
def test_a_run_goes_to_a_file(cli: Cli, run: str, form: str) -> None:
    done = cli("export", run, "-f", form, "-o", "out")

    what = "9 events" if form == "csv" else "4 spans"
    assert (done.code, done.out, done.err) == (0, "", f"wrote    out  {what}\n")
    assert Path("out").stat().st_size


def test_exported_spans_verify_their_log(cli: Cli, run: str) -> None:
    cli("export", run, "-f", "otlp-json", "-o", "spans.jsonl")

    assert cli("verify", run, "--against", "spans.jsonl").code == 0
    cli("run", "flow.py:failing", "--id", "other")
    assert cli("verify", "other", "--against", "spans.jsonl").code == 1


def test_an_existing_file_is_replaced_only_with_force(cli: Cli, run: str) -> None:
    Path("out").write_text("mine")
    done = cli("export", run, "-f", "csv", "-o", "out")

    assert done.code == 2
    assert done.err == (
        "error: out: a file of that name exists: name another, or pass --force to replace it\n"
        "`tapps-otel export --help` explains the usage\n"
    )
    assert Path("out").read_text() == "mine"
    assert cli("export", run, "-f", "csv", "-o", "out", "--force").code == 0
    assert Path("out").read_text().startswith("seq,")


def test_a_log_is_not_replaced_even_with_force(cli: Cli, run: str) -> None:
    before = (LOGS / "r.jsonl").read_bytes()
    done = cli("export", run, "-f", "otlp-json", "-o", str(LOGS / "r.jsonl"), "--force")

    assert done.code == 2
    assert "name another, as it is in the folder of logs\n" in done.err
    assert (LOGS / "r.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nobody", "-f", "csv"], 3, "error: no run 'nobody' in "),
        (["../r", "-f", "csv"], 2, "error: '../r' cannot be a run id"),
        (["r", "-f", "csv", "-o", "no/out"], 2, "error: no/out: No such file or directory"),
        (["r", "-f", "csv", "-o", "."], 2, "error: .: not a regular file"),
        (["r", "-f", "csv", "-o", "flow.py/out"], 2, "error: flow.py/out: Not a directory"),
        (["r", "-f", "csv", "--force"], 2, "error: --force needs --output FILE"),
        (["r", "-f", "xml"], 2, "'xml' is not one of 'otlp-json', 'chrome-trace', 'csv'"),
        (["r"], 2, "error: missing option '--format'"),
    ],
)
def test_errors_of_export(cli: Cli, run: str, arguments: list[str], code: int, said: str) -> None:
    done = cli("export", *arguments)

    assert (done.code, done.out) == (code, "")
    assert said in done.err


@every_format
def test_everything_before_the_damage_is_written_and_the_damage_reported(
    cli: Cli, run: str, form: str
) -> None:
    damage(-1)
    done = cli("export", run, "-f", form)

    assert done.code == 6
    assert "damaged at byte" in done.err
    assert "tapps-otel verify" in done.err
    if form == "csv":
        assert len(done.out.splitlines()) == 9
    elif form == "chrome-trace":
        assert len(trace_of(done.out).slices) == 3
    else:
        request_of(done.out)


def test_a_file_of_a_damaged_log_is_reported_too(cli: Cli, run: str) -> None:
    damage(-1)
    done = cli("export", run, "-f", "chrome-trace", "-o", "out")

    assert done.code == 6
    assert done.err.startswith("wrote    out  3 spans\nerror: ")
    assert len(trace_of(Path("out").read_text()).slices) == 3


def test_unfinished_spans_are_left_out_and_reported(cli: Cli, run: str) -> None:
    path = LOGS / "r.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    held = Lease(LOGS / "r.lease", "r")
    try:
        done = cli("export", run, "-f", "chrome-trace")
    finally:
        held.release()

    assert done.code == 0
    assert done.err == "the run is in progress: unfinished spans are left out\n"
    assert len(trace_of(done.out).slices) == 3


def test_invalid_spans_are_reported_with_an_exit_code(cli: Cli) -> None:
    evil = "no hex\x1b]0;x\x07"
    span = {"event_type": "span", "name": "GET", "otel": {}, "span_id": "0a" * 8}
    bad, good = {**span, "trace_id": evil}, {**span, "trace_id": "4b" * 16}
    forge(LOGS, "r", [{"event_type": "workflow_start"}, bad, good])
    done = cli("export", "r", "-f", "otlp-json")

    assert done.code == 1
    request_of(done.out)
    assert done.err.startswith("problem  r.jsonl, seq 2: this span cannot be rebuilt: 'no hex\\x1b")
    assert done.err[:-1].isprintable()


@every_format
@pytest.mark.usefixtures("run")
@pytest.mark.exhaustive
def test_progress_is_shown_on_a_terminal(form: str) -> None:
    shown = on_terminal("export", "r", "-f", form, "-o", "out")

    assert "…" in shown.split("wrote")[0]
    assert f"wrote    \x1b[0m\x1b[1mout\x1b[0m  {9 if form == 'csv' else 4} " in shown
    assert "…" not in on_terminal("export", "r", "-f", form).split("\n")[0]


@every_format
@pytest.mark.usefixtures("run")
def test_a_reader_that_closes_the_pipe_is_not_an_error(form: str) -> None:
    read, write = os.pipe()
    os.close(read)
    with programs.Popen(
        command("export", "r", "-f", form), env=environment(), stdout=write, stderr=subprocess.PIPE
    ) as one:
        os.close(write)
        _, said = one.communicate(timeout=20)

    assert (one.returncode, said) == (141, b"")


@every_format
@pytest.mark.usefixtures("run")
@pytest.mark.exhaustive
def test_no_locale_changes_the_bytes(form: str) -> None:
    path = LOGS / "r.jsonl"
    forge(LOGS, "r", [{"event_type": "workflow_start", "workflow": {"name": "ä漢"},
                       "trace_id": "4b" * 16, "span_id": "0a" * 8, "step_id": "ä漢"}])  # fmt: skip
    assert path.exists()
    made = [
        subprocess.run(
            command("export", "r", "-f", form),
            env=environment(PYTHONIOENCODING=encoding),
            capture_output=True,
            check=True,
        ).stdout
        for encoding in ("utf-8", "ascii")
    ]

    assert made[0] == made[1]
    assert "ä漢".encode() in made[0]


def test_a_closed_standard_output_does_not_crash(run: str) -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *command("export", run, "-f", "csv")],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_a_run_of_another_folder_can_be_exported(cli: Cli, run: str) -> None:
    LOGS.rename("elsewhere")
    done = child("export", run, "-f", "chrome-trace", "--log-dir", "elsewhere")

    assert done.code == 0
    assert len(json.loads(done.out)) > 4
