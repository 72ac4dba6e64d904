"""The command ``resolve``."""

from __future__ import annotations

import getpass
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from commands import LOGS, Cli, child
from independent_checker import check
from tapps_otel import history, settings
from tapps_otel.log.lease import Lease
from tapps_otel.run.resolving import resolve

pytestmark = pytest.mark.slow  # most of them start processes


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def lines_after(path: Path, offset: int) -> list[str]:
    return [json.loads(one)["event_type"] for one in path.read_bytes()[offset:].splitlines()[1:]]


def test_a_result_closes_the_open_attempt_and_the_step_does_not_run(cli: Cli, shop: Path) -> None:
    before = shop.read_bytes()
    done = cli("resolve", "s", "pay", "--result", '"paid by hand"')
    finish, remark = lines(shop)[-2:]
    start = next(one for one in lines(shop) if one.get("step_id") == "pay")
    resumed = child("resume", "s")

    assert done.code == 0
    assert "pay has this result now, and will not run again" in done.out
    assert shop.read_bytes().startswith(before)
    assert (finish["event_type"], finish["attempt"], finish["late"]) == ("step_finish", 1, True)
    assert finish["span_id"] == start["span_id"]
    assert finish["parent_span_id"] == lines(shop)[0]["span_id"]
    assert (finish["execution"], remark["execution"]) == (2, 2)
    assert (remark["name"], remark["attributes"]["by"]) == ("tapps.resolved", "result")
    assert (resumed.code, resumed.out) == (0, '"paid by hand"\n')
    assert len(check(shop)) == len(lines(shop))


def test_a_closed_attempt_is_followed_by_another(cli: Cli, shop: Path) -> None:
    assert child("resume", "s").code == 5  # which records the interruption
    done = cli("resolve", "s", "pay", "--result", '"paid"')
    start, finish, _ = lines(shop)[-3:]
    resumed = child("resume", "s")

    assert done.code == 0
    assert (start["event_type"], start["attempt"], start["late"]) == ("step_start", 2, True)
    assert (finish["attempt"], finish["duration_ns"]) == (2, 0)
    assert start["span_id"] == finish["span_id"]
    assert resumed.out == '"paid"\n'


def test_a_step_resolved_with_rerun_runs_again(cli: Cli, shop: Path) -> None:
    done = cli("resolve", "s", "pay", "--rerun")
    Path("paid.txt").touch()
    resumed = child("resume", "s")

    assert (done.code, lines(shop)[4]["event_type"]) == (0, "annotation")
    assert "pay will run again" in done.out
    assert resumed.out == '"paid"\n'
    assert len(history("s").by_id["pay"].attempts) == 2


def test_the_log_says_who_resolved_a_step_and_why(cli: Cli, shop: Path) -> None:
    cli("resolve", "s", "pay", "--rerun", "--reason", "the bank has no such payment")
    said = lines(shop)[-1]["attributes"]

    assert said == {
        "by": "rerun",
        "user": getpass.getuser(),
        "host": socket.gethostname(),
        "pid": said["pid"],
        "reason": "the bank has no such payment",
    }
    assert "the bank has no such payment" in cli("show", "s").out


def test_show_gives_both_choices_the_result_first(cli: Cli, shop: Path) -> None:
    assert child("resume", "s").code == 5
    _, _, choices = cli("show", "s").out.rpartition("\nnext ")
    first, second = choices.splitlines()

    assert first.endswith("resolve s pay --result JSON")
    assert second.startswith("or ")
    assert second.endswith("resolve s pay --rerun")


def test_a_large_result_is_a_blob(cli: Cli, shop: Path) -> None:
    cli("resolve", "s", "pay", "--result", json.dumps("x" * 70_000))

    assert "result_blob" in lines(shop)[-2]
    assert child("resume", "s").out == '"' + "x" * 70_000 + '"\n'


def test_a_torn_end_is_sealed_first(cli: Cli, shop: Path) -> None:
    data = shop.read_bytes()
    shop.write_bytes(data + b'{"v":1,"seq":5,"event_')
    done = cli("resolve", "s", "pay", "--rerun")

    assert done.code == 0
    assert lines_after(shop, len(data)) == ["log_repair", "annotation"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["s", "pay"], 2, "give --result JSON or --rerun"),
        (["s", "pay", "--rerun", "--result", "1"], 2, "give --result JSON or --rerun"),
        (["s", "pay", "--result", "paid"], 2, "--result is not JSON"),
        (["s", "pay", "--result", "NaN"], 2, "--result is not JSON"),
        (["s", "pya", "--rerun"], 5, "no step 'pya'. Interrupted steps: 'pay'"),
        (["s", "double", "--result", "7"], 5, "was not interrupted, it is completed"),
        (["nobody", "pay", "--rerun"], 3, "no run 'nobody'"),
        (["a/b", "pay", "--rerun"], 2, "cannot be a run id"),
    ],
)
def test_errors_of_resolve_write_nothing(
    cli: Cli, shop: Path, arguments: list[str], code: int, said: str
) -> None:
    (LOGS / "s.lease").unlink()  # left by the killed run
    before = {path.name: path.read_bytes() for path in LOGS.iterdir()}
    done = cli("resolve", *arguments)

    assert done.code == code
    assert done.err.startswith("error: ")
    assert said in done.err
    assert {name for name, _ in before.items()} == {path.name for path in LOGS.iterdir()}
    assert shop.read_bytes() == before["s.jsonl"]


def test_a_result_with_a_secret_is_not_written_if_the_settings_say_so(
    cli: Cli, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = shop.read_bytes()
    monkeypatch.setenv("TAPPS_OTEL_REDACT_RESULTS", "1")
    monkeypatch.setattr(settings, "_current", None)
    done = cli("resolve", "s", "pay", "--result", '"password=hunter2hunter2"')

    assert done.code == 5
    assert "redact_results" in done.err
    assert "hunter2" not in done.err
    assert shop.read_bytes() == before


def test_a_completed_step_runs_again_if_its_result_no_longer_fits(
    cli: Cli, shop: Path, flow: Path
) -> None:
    source = flow.read_text()
    assert "def double(number: int) -> int:" in source
    # Of another length: compiled code counts as valid for a file of the same second and length.
    flow.write_text(
        source.replace("def double(number: int) -> int:", "def double(number: int) -> str:  # new")
    )
    refused = child("resume", "s")
    resolved = cli("resolve", "s", "double", "--rerun")
    again = child("resume", "s")

    assert "tapps-otel resolve s double --rerun" in refused.err
    assert resolved.code == 0
    assert "result of double" in again.err  # it ran, and returned an int
    assert [step.last.number for step in history("s").steps if step.name == "double"] == [2]


def test_a_step_inside_a_stored_result_is_not_resolved(cli: Cli) -> None:
    """A resume takes that result, and would never call it."""
    nested = Path("nested.py")
    nested.write_text(
        """
from tapps_otel import step, workflow

@step
def inner() -> int:
    return 1

@step
def outer() -> int:
    return inner()

@workflow
def flow() -> None:
    outer()
    raise ValueError("later")
""",
        "utf-8",
    )
    cli("run", "nested.py:flow", "--id", "r", "-q")
    before = (LOGS / "r.jsonl").read_bytes()
    done = cli("resolve", "r", "outer/inner", "--rerun")

    assert done.code != 0
    assert "is inside 'outer', which has a stored result" in done.err
    assert "`tapps-otel resolve r outer --rerun`" in done.err
    assert (LOGS / "r.jsonl").read_bytes() == before


def test_a_step_of_a_completed_run_is_not_resolved(cli: Cli) -> None:
    cli("run", "flow.py:small", "--id", "a")

    assert (
        "has completed: there is nothing to resolve" in cli("resolve", "a", "double", "--rerun").err
    )


def test_a_failure_that_was_handled_can_be_resolved(cli: Cli, flow: Path) -> None:
    with flow.open("a") as file:
        file.write(
            "\n\n@step\ndef bad() -> None:\n    raise ValueError\n"
            "\n\n@workflow\ndef handling() -> None:\n"
            "    try:\n        bad()\n    except ValueError:\n        double(1)\n    bad()\n"
        )
    cli("run", "flow.py:handling", "--id", "a")

    assert history("a").by_id["bad"].handled
    resolve("a", "bad", result=b"null")
    assert history("a").by_id["bad"].status == "completed"
    resolve("a", "bad#2")
    assert not history("a").by_id["bad#2"].handled


@pytest.mark.parametrize(
    "arguments", [["resolve", "s", "pay", "--rerun"], ["repair", "s", "--accept-damage"]]
)
def test_a_run_in_progress_is_busy(cli: Cli, shop: Path, arguments: list[str]) -> None:
    lease = Lease(LOGS / "s.lease", "s")
    try:
        done = cli(*arguments)
    finally:
        lease.release()

    assert shop.exists()
    assert done.code == 4
