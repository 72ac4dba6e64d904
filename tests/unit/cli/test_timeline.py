from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from commands import LOGS, Cli, child
from logs import forge
from tapps_otel import timeline
from tapps_otel.errors import RunNotFoundError
from tapps_otel.log.lease import Lease
from terminals import C_LOCALE, displayed


def test_the_timeline_of_a_killed_and_resumed_run(cli: Cli, killed: str) -> None:
    done = cli("timeline", killed)

    assert (done.code, done.err) == (0, "")
    assert re.search(r"^status +completed at .*, after 2 executions$", done.out, re.MULTILINE)
    assert re.search(r"^killed +pay after .* \(execution 1 at ", done.out, re.MULTILINE)
    assert re.search(r"^down +.* after execution 1", done.out, re.MULTILINE)
    assert re.search(r"^kept +\d steps? not run again: ", done.out, re.MULTILINE)
    assert re.search(r"^costs +\w+ ", done.out, re.MULTILINE)
    assert re.search(r"^✓ pay .*!░+.*█", done.out, re.MULTILINE)


@pytest.mark.parametrize("columns", [60, 100, 200])
@pytest.mark.exhaustive
def test_it_fits_the_terminal(killed: str, columns: int) -> None:
    lines = displayed("timeline", killed, columns=columns)

    axis = 1 + lines.index("")
    rows = lines[axis + 1 : lines.index("", axis)]
    assert lines[axis].lstrip().startswith("0")
    assert [line[:13] for line in rows[:2]] == ["! execution 1", "✓ execution 2"]
    assert [line.split()[1] for line in rows[2:]] == ["double", "pay"]  # none was wrapped
    assert max(map(len, rows)) > columns * 0.8


def test_it_is_readable_in_the_c_locale(killed: str) -> None:
    shown = "\n".join(displayed("timeline", killed, columns=100, **C_LOCALE))

    assert shown.isascii()
    assert re.search(r"^\+ pay .*!\.+.*#", shown, re.MULTILINE)
    assert "# the run waited for it" in shown


@pytest.mark.usefixtures("runs")
def test_markdown_and_json(cli: Cli) -> None:
    page = cli("timeline", "two", "--markdown").out
    data = json.loads(cli("timeline", "two", "--json").out)

    assert page.startswith("# failing: two\n")
    assert "| double |" in page
    assert page.endswith("\n- next      tapps-otel resume two\n")
    assert cli("timeline", "two").out.endswith("\n\nnext      tapps-otel resume two\n")
    assert "next" not in cli("timeline", "one").out
    assert data["status"] == "failed"
    assert data["steps"][0]["attempts"][0]["status"] == "completed"


@pytest.mark.usefixtures("runs")
def test_a_page_is_a_private_file_that_is_replaced_only_with_force(cli: Cli) -> None:
    done = cli("timeline", "one", "--html", "one.html")

    assert (done.code, done.out, done.err) == (0, "", "wrote    one.html  1 step\n")
    assert Path("one.html").stat().st_mode & 0o777 == 0o600
    assert "<title>small: one</title>" in Path("one.html").read_text("utf-8")
    assert cli("timeline", "two", "--html", "one.html").code == 2
    assert cli("timeline", "two", "--html", "one.html", "--force").code == 0
    assert "<title>failing: two</title>" in Path("one.html").read_text("utf-8")


@pytest.mark.usefixtures("runs")
def test_several_runs_are_a_folder_of_private_pages_with_an_index(cli: Cli) -> None:
    done = cli("timeline", "one", "two", "one", "--html", "pages")
    files = sorted(Path("pages").rglob("*.html"))

    assert (done.code, done.out, done.err) == (0, "", "wrote    pages/index.html  2 runs\n")
    assert [str(path) for path in files] == [
        "pages/index.html", "pages/runs/one.html", "pages/runs/two.html",
    ]  # fmt: skip
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert Path("pages").stat().st_mode & 0o777 == 0o700
    assert '"page":"runs/one.html","id":"one"' in files[0].read_text("utf-8")
    assert 'href="../index.html">All runs</a>' in files[1].read_text("utf-8")
    again = cli("timeline", "one", "three", "--html", "pages")
    assert (again.code, "pass --force to replace it" in again.err) == (2, True)
    assert not Path("pages/runs/three.html").exists()
    assert cli("timeline", "one", "three", "--html", "pages", "--force").code == 0


@pytest.mark.usefixtures("runs")
def test_an_index_has_damaged_runs_too(cli: Cli) -> None:
    path = LOGS / "one.jsonl"
    path.write_bytes(path.read_bytes() + b"junk\njunk\n")
    done = cli("timeline", "one", "two", "--html", "pages")

    assert done.code == 1
    assert "damaged at byte " in done.err
    assert "its log is damaged" in Path("pages/index.html").read_text("utf-8")


@pytest.mark.usefixtures("runs")
def test_a_page_replaces_no_log(cli: Cli) -> None:
    before = (LOGS / "two.jsonl").read_bytes()

    assert cli("timeline", "one", "--html", str(LOGS / "two.jsonl"), "--force").code == 2
    assert (LOGS / "two.jsonl").read_bytes() == before


@pytest.mark.usefixtures("runs")
def test_the_page_links_to_the_jaeger_of_the_settings() -> None:
    jaeger = {"TAPPS_OTEL_JAEGER_URL": "https://jaeger.example/"}
    assert child("timeline", "one", "--html", "one.html", **jaeger).code == 0
    trace_id = timeline("one").trace_id

    assert f'"jaeger":"https://jaeger.example/trace/{trace_id}"' in Path("one.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--markdown", "--json"], "give one of --markdown, --html FILE and --json"),
        (["--markdown", "--html", "x"], "give one of --markdown, --html FILE and --json"),
        (["--force"], "--force needs --html FILE"),
        (["--html", "no/x"], "no/x: No such file or directory"),
        (["two"], "several runs need --html FOLDER; diff compares two"),
        (["two", "--html", "x.html"], "of several runs, --html names a folder"),
        (["two", "--html", "flow.py"], "flow.py/runs: Not a directory"),
    ],
)
@pytest.mark.usefixtures("runs")
def test_wrong_usage(cli: Cli, arguments: list[str], said: str) -> None:
    done = cli("timeline", "one", *arguments)

    assert done.code == 2
    assert said in done.err


@pytest.mark.usefixtures("runs")
def test_the_page_of_a_damaged_log_is_written_and_the_damage_reported(cli: Cli) -> None:
    path = LOGS / "one.jsonl"
    path.write_bytes(path.read_bytes() + b"junk\njunk\n")
    done = cli("timeline", "one", "--html", "one.html")

    assert done.code == 1
    assert "damaged at byte " in done.err
    assert "damaged at byte " in Path("one.html").read_text("utf-8")


@pytest.mark.usefixtures("runs")
def test_a_damaged_log_is_shown_up_to_the_damage(cli: Cli) -> None:
    path = LOGS / "one.jsonl"
    path.write_bytes(path.read_bytes() + b"junk\njunk\n")
    done = cli("timeline", "one")

    assert done.code == 1
    assert "✓ double" in done.out
    assert "damaged   shown up to seq" in done.out
    assert "damaged at byte " in done.err


@pytest.mark.usefixtures("runs")
def test_a_run_whose_end_is_damaged_was_not_killed(cli: Cli) -> None:
    path = LOGS / "one.jsonl"
    *lines, end = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines, end.replace(b"completed", b"cancelled"), b"junk\n"]))
    shown = cli("timeline", "one").out

    assert re.search(r"^status +damaged at ", shown, re.MULTILINE)
    assert "killed" not in shown
    assert timeline("one").status == "damaged"


def test_a_missing_run_is_an_error(cli: Cli) -> None:
    assert cli("timeline", "nobody").code == 3
    with pytest.raises(RunNotFoundError):
        timeline("nobody")


def test_a_run_in_progress_has_no_end(cli: Cli, shop: Path) -> None:
    lease = Lease(LOGS / "s.lease", "s")
    try:
        made = timeline("s")
    finally:
        lease.release()

    assert made.status == "running"
    assert made.steps[-1].status == "running"
    assert made.end_ns > timeline("s").end_ns
    assert timeline("s").status == "interrupted"
    assert made.log is not None
    assert made.log.seq == len(shop.read_bytes().splitlines())


@pytest.mark.usefixtures("runs")
def test_an_unfinished_end_is_marked(cli: Cli) -> None:
    path = LOGS / "one.jsonl"
    path.write_bytes(path.read_bytes()[:-100])

    assert "an unfinished line (no damage)" in cli("timeline", "one").out


def test_the_page_has_captured_spans_of_side_logs_too(cli: Cli) -> None:
    span = {"event_type": "span", "span_id": "0b" * 8, "parent_span_id": "0a" * 8}
    start = {"event_type": "step_start", "step_id": "draft", "step": "draft", "span_id": "0a" * 8}
    forge(LOGS, "r", [{**span, "name": "of another process"}]).rename(LOGS / "r+0123abcd.jsonl")
    forge(LOGS, "r", [{"event_type": "workflow_start"}, start, {**span, "name": "of this one"}])
    assert cli("timeline", "r", "--html", "r.html").code == 0
    page = Path("r.html").read_text("utf-8")

    assert '[0,"of this one",' in page
    assert '[0,"of another process",' in page
