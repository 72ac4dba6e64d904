"""Logs whose chain is right and whose content is not to be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from commands import Cli, child
from effort import examples
from logs import forge

EVIL = "\x1b]0;pwned\x07\x1b[2J\x9b31m\u202e\u2028\ud800\r\n<b>[link=x]\x00"


EVERYWHERE: list[dict[str, Any]] = [
    {
        "event_type": "workflow_start",
        "workflow": {
            "name": EVIL,
            "path": EVIL,
            "parent": {"workflow_id": EVIL, "step_id": EVIL, "log_dir": EVIL},
        },
        "process": {"pid": EVIL, "host": EVIL},
        "inputs": {EVIL: EVIL},
        "trace_id": EVIL,
    },
    {"event_type": "step_start", "step_id": EVIL, "step": EVIL, "agent": EVIL, "attempt": 1},
    {"event_type": "step_start", "step_id": f"{EVIL}/in", "step": EVIL, "attempt": 1},
    {
        "event_type": "step_fail",
        "step_id": f"{EVIL}/in",
        "step": EVIL,
        "status": EVIL,
        "error": {"type": EVIL, "message": EVIL, "stack": EVIL},
        "retry_in_ns": 10**18,
        "reason": EVIL,
    },
    {"event_type": "step_finish", "step_id": EVIL, "result": EVIL, "artifacts": [{"path": EVIL}]},
    {"event_type": "step_finish", "step_id": "kept", "result_omitted": EVIL},
    {
        "event_type": "step_start",
        "step_id": f"open{EVIL}",
        "step": EVIL,
        "attributes": {"tapps.child.workflow_id": EVIL, "tapps.child.log_dir": EVIL},
    },
    {"event_type": "annotation", "name": EVIL, "step_id": EVIL, "attributes": {EVIL: [EVIL]}},
    {"event_type": EVIL},
    {"event_type": "workflow_end", "status": EVIL, "error": {"type": EVIL, "message": EVIL}},
]
COMMANDS = ["timeline r", "timeline r --json", "timeline r --markdown", "timeline r --html x.html",
            "show r", "show r --json", "verify r", "verify r --json", "verify --all", "list",
            "list --json", "resume r -q", "resume --last", f"resolve r open{EVIL} --rerun",
            f"resolve r {EVIL} --rerun", "repair r --accept-damage", f"show {EVIL}",
            "export r -f otlp-json", "export r -f chrome-trace", f"export {EVIL} -f csv",
            "export r -f csv -o no\x1b]0;x\x07\u202e/x", f"run {EVIL}:x", f"run x -i {EVIL}",
            f"list --since {EVIL}",
            "watch r", "diff r r", "diff r r --json", f"diff r {EVIL}"]  # fmt: skip


def safe(cli: Cli, command: str) -> None:
    done = cli(*command.split(" "), "--log-dir", "hostile")
    for line in (done.out + done.err).split("\n"):
        assert line.isprintable(), command
    assert "Traceback" not in done.err
    assert "unexpected" not in done.err


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_lets_a_control_character_through(cli: Cli, command: str) -> None:
    forge(Path("hostile"), "r", EVERYWHERE)
    safe(cli, command)


@pytest.mark.parametrize("form", ["otlp-json", "chrome-trace"])
def test_no_log_record_of_a_library_lets_one_through(form: str) -> None:
    odd = {"trace_state": f"{EVIL}=1", "attributes": {EVIL: EVIL}, "events": [[EVIL, 1, {}]]}
    span = {"event_type": "span", "name": EVIL, "otel": odd}
    ids = {"trace_id": "4b" * 16, "span_id": "0a" * 8}
    forge(Path("hostile"), "r", [{"event_type": "workflow_start"}, {**span, **ids}])
    done = child("export", "r", "-f", form, "--log-dir", "hostile")

    assert all(line.isprintable() for line in (done.out + done.err).split("\n"))
    assert "pwned" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "events",
    [
        [{"event_type": "workflow_start", "timestamp": "1e300", "execution": -5, "process": {}}],
        [{"event_type": "workflow_start", "workflow": {"name": None, "path": 3}}],
        [{"event_type": "step_start"}, {"event_type": "step_finish", "attempt": -1}],
        [{"event_type": "step_start", "step_id": ""}, {"event_type": "workflow_end"}],
        [{"event_type": "step_finish", "step_id": "a/b/c", "duration_ns": -(10**18)}],
        [{"event_type": "step_fail", "step_id": "x", "error": {}, "caused_by": ["y"]}],
        [{"event_type": "step_fail", "step_id": "x", "error": {"type": 3, "message": [1]}}],
        [{"event_type": "step_skip", "step_id": "x", "artifacts": [{}]}],
        [{"event_type": "workflow_resume", "execution": 2**62, "process": {"pid": [1]}}],
        [{"event_type": "workflow_end", "status": "completed", "result": "\ud800"}],
        [{"event_type": "workflow_end", "status": "completed", "result_blob": "../../x"}],
        [{"event_type": "log_gap", "attributes": {"dropped": "x"}}],
        [{"event_type": "annotation", "name": "tapps.resolved", "step_id": "nobody"}],
    ],
)
def test_events_in_an_impossible_order_are_shown(cli: Cli, events: list[dict[str, Any]]) -> None:
    forge(Path("hostile"), "r", events)
    for command in (
        "show r",
        "show r --json",
        "timeline r",
        "timeline r --markdown",
        "watch r --no-wait",
        "diff r r",
        "verify r",
        "list",
        "resume r",
        "resolve r x --rerun",
    ):
        safe(cli, command)


RUN = ["workflow_start", "workflow_resume", "workflow_end", "annotation", "log_gap"]
STEP = ["step_start", "step_finish", "step_fail", "step_skip"]
FIELD = st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.text(max_size=5))


@pytest.mark.slow
@settings(
    max_examples=examples(60),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "event_type": st.sampled_from(RUN + STEP),
            },
            optional={
                "step_id": st.sampled_from(["a", "a/b", "a/b/c", "", "/", "#"]),
                "attempt": st.integers(-1, 3),
                "status": st.sampled_from(["failed", "interrupted", "completed", "x", ""]),
                "error": st.dictionaries(st.sampled_from(["type", "message"]), FIELD),
                "attributes": st.dictionaries(st.text(max_size=3), FIELD, max_size=2),
                "workflow": st.dictionaries(st.sampled_from(["name", "path"]), FIELD),
                "process": st.dictionaries(st.sampled_from(["pid", "host"]), FIELD),
                "artifacts": st.lists(
                    st.dictionaries(st.sampled_from(["path"]), FIELD), max_size=1
                ),
                "retry_in_ns": st.integers(0, 2**62),
                "caused_by": st.lists(st.sampled_from(["a", "b"]), max_size=2),
                "result": FIELD,
                "timestamp": st.text(max_size=30),
                "execution": st.integers(0, 3),
                "order": st.integers(0, 3),
            },
        ),
        max_size=8,
    )
)
def test_any_events_are_shown_as_a_history(cli: Cli, events: list[dict[str, Any]]) -> None:
    forge(Path("hostile"), "r", events)
    for command in (
        "show r",
        "show r --json",
        "timeline r",
        "watch r --no-wait",
        "diff r r",
        "list",
    ):
        safe(cli, command)
