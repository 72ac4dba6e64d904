"""A run's log against spans kept elsewhere: what is found, and that nothing else is."""

from __future__ import annotations

import copy
import json
import re
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from commands import LOGS, Cli
from crashes import go, killed
from logs import event, lines_of, writing
from otlp_files import keep, requests_of, span_of
from tapps_otel import annotate, history, step, verify, workflow
from tapps_otel.audit import otlp_json
from tapps_otel.audit.verify import VerifyReport
from tapps_otel.errors import LogError, SpansError
from tapps_otel.log.event import Event
from tapps_otel.log.store import Store
from tapps_otel.otel.replay.send import send_run
from tapps_otel.otel.transport.client import Answer, Client
from tapps_otel.otel.transport.destination import HTTP, Destination

LOG = LOGS / "r.jsonl"
FILE = Path("spans.jsonl")


@step
def double(number: int) -> int:
    annotate("note", share=0.5, marks=[1, 2])
    return 2 * number


@step
def fail() -> int:
    raise ValueError("no")


@workflow
def small(number: int = 1) -> int:
    with suppress(ValueError):
        fail()
    return double(double(number))


Requests = list[dict[str, Any]]


@pytest.fixture
def kept() -> Requests:
    """A run that has completed, as its spans were sent: fail, double, double#2, the workflow."""
    go(small)
    requests = requests_of(LOGS, "r")
    keep(FILE, requests)
    return requests


def against(requests: Requests) -> VerifyReport:
    return verify("r", against=keep(FILE, requests))


def only_problem(report: VerifyReport) -> str:
    (problem,) = report.problems
    return problem


def attributes_of(described: dict[str, Any]) -> dict[str, Any]:
    """Attributes of a span or an event in JSON, to be changed in place."""
    return {pair["key"]: pair["value"] for pair in described["attributes"]}


def rechained(lines: list[bytes], workflow_id: str = "r") -> bytes:
    """A log of these lines, with a chain that holds: what somebody does who knows the format."""
    sha, made = sha256(workflow_id.encode()).hexdigest().encode(), b""
    for line in lines:
        sha = sha256(sha + line[:-75]).hexdigest().encode()
        made += line[:-75] + b',"sha":"%b"}\n' % sha
    return made


# ---------------------------------------------------------------- what agrees


def test_a_run_is_equal_to_its_sent_spans(kept: Requests) -> None:
    report = verify("r", against=FILE)
    found = report.against

    assert report.ok
    assert found is not None
    assert (found.spans, found.equal, found.running) == (4, 4, False)
    assert [(head.seq, head.sha) for head in found.heads] == [(report.log.seq, report.log.sha)]
    assert "compared with spans.jsonl: 4 of 4 spans are there, and equal" in report.notes
    report.raise_if_bad()


def test_order_and_batches_do_not_matter(kept: Requests) -> None:
    def shuffled(request: dict[str, Any]) -> dict[str, Any]:
        span = span_of(request)
        for described in (span, *span["events"], request["resourceSpans"][0]["resource"]):
            described.get("attributes", []).reverse()
        span["events"].reverse()
        return request

    whole = {"resourceSpans": [of for one in kept[::-1] for of in shuffled(one)["resourceSpans"]]}

    assert against([whole, {"resourceSpans": []}]).ok


def test_identical_copies_are_not_a_problem(kept: Requests) -> None:
    assert against(kept + kept).ok


def test_integers_may_be_json_numbers(kept: Requests) -> None:
    text = re.sub(r'"(intValue|\w+UnixNano)": "(\d+)"', r'"\1": \2', FILE.read_text("utf-8"))
    FILE.write_text(text, "utf-8")

    assert verify("r", against=FILE).ok


def test_spans_of_other_runs_and_libraries_are_ignored(kept: Requests) -> None:
    marker, library, other = copy.deepcopy(kept[1:4])
    of_scope = library["resourceSpans"][0]["scopeSpans"][0]
    for number, request in enumerate((marker, library, other)):
        span_of(request)["spanId"] = f"{number + 1:016x}"
    span_of(marker)["attributes"].append({"key": "tapps.marker", "value": {"boolValue": True}})
    of_scope["scope"]["name"] = "httpx"
    attributes_of(span_of(other))["tapps.workflow.id"]["stringValue"] = "another"

    assert against([*kept, marker, library, other]).ok


def test_two_runs_in_one_trace_are_distinguished() -> None:
    caller = SpanContext(7, 7, is_remote=True, trace_flags=TraceFlags(1))
    with trace.use_span(NonRecordingSpan(caller)):
        go(small, workflow_id="r")
        go(small, 5, workflow_id="other")
    own, others = requests_of(LOGS, "r"), requests_of(LOGS, "other")

    assert {span_of(one)["traceId"] for one in own + others} == {f"{7:032x}"}
    assert against(own + others).ok
    assert verify("other", against=FILE).ok
    assert only_problem(against(others)).startswith("4 spans are not there, of 4: ")


def test_a_killed_run_is_equal_to_its_spans_before_and_after_its_resume() -> None:
    @workflow
    def slow() -> int:
        return double(double(1))

    killed(lambda: go(slow), before="step_finish double#2")
    sent = requests_of(LOGS, "r")
    before = against(sent)
    go(slow)
    after = against(sent + requests_of(LOGS, "r"))

    assert before.ok
    assert after.ok
    assert after.against is not None
    assert [head.execution for head in after.against.heads] == [1, 2]
    assert not against(sent).ok  # the second execution was not sent


def test_a_run_in_progress_has_no_missing_spans() -> None:
    seen: list[VerifyReport] = []

    @step
    def look() -> None:
        seen.append(verify("r", against=keep(FILE, [])))
        seen.append(verify("r", against=keep(FILE, requests_of(LOGS, "r"))))

    @workflow
    def looking() -> None:
        double(1)
        look()

    go(looking)
    empty, sent = seen

    assert empty.ok
    assert "1 span is not there yet; the run is in progress" in empty.notes
    assert sent.ok
    assert sent.against is not None
    assert (sent.against.equal, sent.against.running) == (1, True)
    assert "no span there confirms the log's lines after seq 0" in sent.notes


def test_spans_ended_after_the_run_need_no_head(kept: Requests) -> None:
    with writing(LOG, "r") as writer:
        writer.append(captured(span_of(kept[3])))
    late = against(requests_of(LOGS, "r"))
    with writing(LOG, "r") as writer:
        writer.append(event("annotation", workflow_id="r", name="after all"))
    more = against(requests_of(LOGS, "r"))

    assert late.ok
    assert late.notes == ("compared with spans.jsonl: 5 of 5 spans are there, and equal",)
    assert "no span there confirms the log's lines after seq 10" in more.notes


# ---------------------------------------------------------------- what the log lost


@pytest.mark.parametrize("lines", [1, 3, 6])
def test_lines_cut_off_the_end_are_found(kept: Requests, lines: int) -> None:
    whole = lines_of(LOG.read_bytes())
    LOG.write_bytes(b"".join(whole[:-lines]))
    report = verify("r", against=FILE)
    sha = json.loads(whole[-1])["sha"]

    assert verify("r").ok  # by itself it is a log of a run that was interrupted
    assert not report.ok
    assert not report.damaged
    assert report.problems[0] == (
        f"the log's end was cut off: a span of execution 1 there records seq {len(whole)} with "
        f"the sha {sha}; the log ends at seq {len(whole) - lines}. Restore the log from a copy "
        "before the run is resumed: what was cut off would run again"
    )
    with pytest.raises(LogError, match="cut off"):
        report.raise_if_bad()


class Accepting(Client):
    """A collector that accepts everything."""

    def __init__(self) -> None:
        super().__init__(Destination(HTTP, "http://127.0.0.1:4318/v1/traces"))

    def _send_once(self, request: bytes, seconds: float) -> Answer:
        return Answer()

    def close(self) -> None: ...


@pytest.fixture
def sent(kept: Requests) -> list[bytes]:
    """A run that captured two spans behind its end, and whose spans were sent; its lines."""
    capture_behind_the_end(kept, "5" * 16, "6" * 16)
    assert send_run(Store(LOGS), "r", Accepting()).ok
    return lines_of(LOG.read_bytes())


def capture_behind_the_end(requests: Requests, *span_ids: str) -> None:
    with writing(LOG, "r") as writer:
        for span_id in span_ids:
            writer.append(captured(span_of(requests[3]), span_id=span_id))


def test_a_ledger_finds_lines_cut_off_behind_the_end(sent: list[bytes], cli: Cli) -> None:
    assert verify("r").ok
    LOG.write_bytes(b"".join(sent[:-2]))
    report = verify("r")

    assert history("r").status == "completed"
    assert only_problem(report).startswith(
        f"the log was cut off at its end: it ends at seq {len(sent) - 2}, and the ledger records "
        f"that http://127.0.0.1:4318/v1/traces confirmed its spans up to seq {len(sent)} with the "
        f"sha {json.loads(sent[-1])['sha']}. Restore the log"
    )
    assert cli("verify", "r").code == 1


def test_a_ledger_finds_a_log_that_was_rewritten(sent: list[bytes]) -> None:
    LOG.write_bytes(rechained([line.replace(b'"result":4', b'"result":9') for line in sent]))

    assert "the log was rewritten, and the ledger records that http" in only_problem(verify("r"))


def test_lines_after_those_that_were_sent_are_no_problem(sent: list[bytes]) -> None:
    with writing(LOG, "r") as writer:
        writer.append(event("annotation", workflow_id="r", name="later"))

    assert verify("r").ok


@pytest.mark.parametrize("ledger", [b"{", b"[]\n", b'{"to":1,"log":"r.jsonl","seq":9,"sha":"a"}\n'])
def test_a_ledger_that_says_nothing_is_no_problem(kept: Requests, ledger: bytes) -> None:
    Store(LOGS).ledger_path("r").write_bytes(ledger)

    assert verify("r").ok


def test_a_ledger_that_cannot_be_read_is_noted(kept: Requests) -> None:
    Store(LOGS).ledger_path("r").mkdir()

    assert verify("r").ok
    assert "r.ledger: cannot be read: not a regular file" in verify("r").notes[0]


def test_captured_spans_cut_off_behind_the_end_are_found(kept: Requests) -> None:
    before = LOG.read_bytes()
    capture_behind_the_end(kept, "5" * 16, "6" * 16)
    everything, whole = requests_of(LOGS, "r"), lines_of(LOG.read_bytes())
    assert against(everything).notes == (
        "compared with spans.jsonl: 6 of 6 spans are there, and equal",
    )

    LOG.write_bytes(b"".join(whole[:-1]))
    assert only_problem(against(everything)).startswith(
        f"1 span is there and not in the log: SELECT (span {'6' * 16}). The log lost"
    )
    LOG.write_bytes(before)
    report = against(everything)
    assert report.ok  # without any of them, it cannot be told that they were captured
    assert report.notes[-1] == (
        "2 library spans are there and not in the log: they were not captured, or lines behind "
        "the run's end were cut off"
    )


def test_libraries_called_by_another_run_of_the_trace_are_ignored(kept: Requests) -> None:
    capture_behind_the_end(kept, "5" * 16, "6" * 16)
    requests = requests_of(LOGS, "r")
    child, called = copy.deepcopy(requests[0]), copy.deepcopy(requests[-1])
    span_of(child)["spanId"] = span_of(called)["parentSpanId"] = "7" * 16
    attributes_of(span_of(child))["tapps.workflow.id"]["stringValue"] = "child"
    span_of(called)["spanId"] = "8" * 16

    assert against([*requests, child, called]).ok
    span_of(called)["parentSpanId"] = "9" * 16
    assert not against([*requests, child, called]).ok


def test_a_log_rewritten_with_a_chain_that_holds_is_found(kept: Requests) -> None:
    lines = lines_of(LOG.read_bytes())
    changed = [line.replace(b'"result":4', b'"result":9') for line in lines]
    LOG.write_bytes(rechained(changed))
    report = verify("r", against=FILE)

    assert changed != lines
    assert verify("r").ok
    assert report.problems[0].startswith(
        f"the log was rewritten: a span of execution 1 there records seq {len(lines)} with the "
        f"sha {json.loads(lines[-1])['sha']}; it is {report.log.sha} now. Restore the log"
    )


def test_a_new_run_under_an_old_id_is_found(kept: Requests) -> None:
    LOG.unlink()
    go(small)
    report = against([*kept, *requests_of(LOGS, "r")])

    assert any("the log was rewritten" in problem for problem in report.problems)
    assert any("4 spans are there and not in the log" in problem for problem in report.problems)


def test_damage_is_distinguished_from_differences(kept: Requests) -> None:
    LOG.write_bytes(LOG.read_bytes().replace(b'"double"', b'"treble"'))
    report = verify("r", against=FILE)

    assert report.damaged
    assert "the line's sha does not match" in report.problems[0]
    assert f"compared as far as {LOG.absolute()} can be read" in report.notes


# ---------------------------------------------------------------- what the spans lost


def change(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Set what stands at a path in a span: keys, numbers, and names of attributes."""

    def apply(span: dict[str, Any]) -> None:
        *way, last = path.split("/")
        place: Any = span
        for part in way:
            place = place[int(part)] if isinstance(place, list) else place[part]
            if part == "attributes":
                place = {pair["key"]: pair["value"] for pair in place}
        place[last] = value

    return apply


def drop_event(span: dict[str, Any]) -> None:
    del span["events"][1]


def add_attribute(span: dict[str, Any]) -> None:
    span["attributes"].append({"key": "tapps.more", "value": {"stringValue": "x"}})


def double_attribute(span: dict[str, Any]) -> None:
    span["attributes"].append({"key": "tapps.attempt", "value": {"intValue": "2"}})


def add_link(span: dict[str, Any]) -> None:
    span["links"] = [{"traceId": "1" * 32, "spanId": "2" * 16}]


@pytest.mark.parametrize(
    ("apply", "said"),
    [
        (change("name", "step treble"), "name is 'step treble' there, 'step double' in the log"),
        (change("kind", 3), "kind is 3 there, 1 in the log"),
        (change("parentSpanId", "1" * 16), f"parent is '{'1' * 16}' there, "),
        (change("startTimeUnixNano", "5"), "start is 5 there, "),
        (change("endTimeUnixNano", "5"), "end is 5 there, "),
        (change("status", {"code": 1}), "status is [1, ''] there, [0, ''] in the log"),
        (
            change("attributes/tapps.attempt/intValue", "2"),
            "attribute tapps.attempt is 2 there, 1 in the log",
        ),
        (add_attribute, "attribute tapps.more is 'x' there, and not in the log"),
        (double_attribute, "attribute tapps.attempt (again, as number "),
        (drop_event, "event annotation at "),
        (change("events/0/timeUnixNano", "5"), "event step_start is at 5 ns there, at "),
        (
            change("events/1/attributes/share/doubleValue", 0.25),
            "event annotation, attribute share is 0.25 there, 0.5 in the log",
        ),
        (
            change("events/1/attributes/marks/arrayValue", {"values": [{"intValue": "2"}]}),
            "event annotation, attribute marks is [2] there, [1, 2] in the log",
        ),
        (add_link, "a link is there, and not in the log: "),
        (change("flags", 768), "flags is 768 there, 256 in the log"),
        (change("traceState", "a=b"), "trace state is 'a=b' there, '' in the log"),
        (change("droppedEventsCount", 1), "dropped counts is [0, 1, 0, "),
    ],
)
def test_what_differs_is_named(
    kept: Requests, apply: Callable[[dict[str, Any]], None], said: str
) -> None:
    span = span_of(kept[1])
    apply(span)
    report = against(kept)

    assert report.against is not None
    assert report.against.equal == 3
    assert only_problem(report).startswith(f"step double (span {span['spanId']}, seq 6) differs: ")
    assert said in only_problem(report)


def test_values_of_different_types_differ(kept: Requests) -> None:
    value = attributes_of(span_of(kept[1]))["tapps.attempt"]
    value.clear()
    value["doubleValue"] = 1

    assert "attribute tapps.attempt is 1.0 there, 1 in the log" in only_problem(against(kept))


def add(where: dict[str, Any], name: str, value: str) -> None:
    where["attributes"].append({"key": name, "value": {"stringValue": value}})


def test_attributes_that_were_added_on_the_way_are_no_problem(kept: Requests, cli: Cli) -> None:
    for request in kept:
        add(request["resourceSpans"][0]["resource"], "k8s.pod.name", "p-1")
        add(span_of(request), "openinference.span.kind", "AGENT")
    report = against(kept)

    assert report.ok
    assert report.against is not None
    assert (report.against.equal, report.against.added.count) == (4, 4)
    assert (
        "4 spans there have attributes that were added on the way, by a library, a processor or a "
        "collector: k8s.pod.name, openinference.span.kind"
    ) in report.notes
    found = json.loads(cli("verify", "r", "--against", str(FILE), "--json").out)
    assert found["against"]["added"]["count"] == 4


def test_a_change_beside_an_added_attribute_is_found(kept: Requests) -> None:
    for request in kept:
        add(span_of(request), "peer.service", "db")
    attributes_of(span_of(kept[1]))["tapps.attempt"]["intValue"] = "2"

    assert "attribute tapps.attempt is 2 there, 1 in the log" in only_problem(against(kept))


def test_an_attribute_of_the_log_that_is_there_twice_was_not_added(kept: Requests) -> None:
    resource = kept[1]["resourceSpans"][0]["resource"]
    add(resource, "service.name", "another")

    assert "resource service.name (again, as number " in only_problem(against(kept))


def test_another_resource_is_named(kept: Requests) -> None:
    attributes_of(kept[1]["resourceSpans"][0]["resource"])["service.name"]["stringValue"] = "x"

    assert "resource service.name is 'x' there, " in only_problem(against(kept))


def test_a_span_that_is_not_there_is_missing(kept: Requests) -> None:
    span = span_of(kept.pop(1))

    assert only_problem(against(kept)) == (
        f"1 span is not there, of 4: step double (span {span['spanId']}, seq 6). `tapps-otel send "
        "r` sends what was not sent"
    )


def test_a_span_that_no_log_has_is_extra(kept: Requests) -> None:
    made_up = copy.deepcopy(kept[1])
    span_of(made_up)["spanId"] = "1" * 16

    assert only_problem(against([*kept, made_up])).startswith(
        f"1 span is there and not in the log: step double (span {'1' * 16}). "
    )


def test_a_span_of_ours_that_names_no_run_is_extra_in_the_runs_trace(kept: Requests) -> None:
    made_up = copy.deepcopy(kept[1])
    span_of(made_up)["spanId"] = "1" * 16
    del span_of(made_up)["attributes"]

    assert "1 span is there and not in the log" in only_problem(against([*kept, made_up]))


def test_a_span_with_two_contents_is_found_whichever_comes_first(kept: Requests) -> None:
    other = copy.deepcopy(kept[1])
    span_of(other)["name"] = "step treble"

    for requests in ([*kept, other], [other, *kept]):
        assert only_problem(against(requests)).startswith(
            "1 span is there with other content too: step double (span "
        )


def test_many_differences_are_counted_and_the_first_listed() -> None:
    @workflow
    def many() -> None:
        for number in range(30):
            double(number)

    go(many)
    requests = requests_of(LOGS, "r")
    for request in requests:
        span_of(request)["name"] += "!"
    report = against(requests)

    assert len(report.problems) == 21
    assert report.problems[-1] == "11 more spans are there with other content"


# ---------------------------------------------------------------- logs beside


def captured(run: dict[str, Any], span_id: str = "5" * 16) -> Event:
    """A library's span, in the trace of this run."""
    return event(
        "span", workflow_id="r", name="SELECT", trace_id=run["traceId"], span_id=span_id,
        parent_span_id=run["spanId"], duration_ns=5, resource={"service.name": "db"},
        otel={"flags": 1, "scope": {"name": "db"}},
    )  # fmt: skip


@pytest.fixture
def beside(kept: Requests) -> Path:
    """A log that another process of the run wrote beside it, with a library's span."""
    path = Store(LOGS.absolute()).new_side_path("r")
    with writing(path, "r") as writer:
        writer.append(captured(span_of(kept[3])))
    return path


def test_a_side_log_is_checked_and_compared(kept: Requests, beside: Path) -> None:
    whole = against(requests_of(LOGS, "r"))
    without = against(kept)

    assert whole.ok
    assert whole.against is not None
    assert (whole.against.spans, [one.seq for one in whole.beside]) == (5, [1])
    assert only_problem(without).startswith("1 span is not there, of 5: SELECT (span 5555")


def test_damage_in_a_side_log_names_the_file(kept: Requests, beside: Path, cli: Cli) -> None:
    beside.write_bytes(beside.read_bytes().replace(b"SELECT", b"DELETE"))
    report = verify("r")

    assert only_problem(report).startswith(f"{beside.name}: byte 0, where seq 1 was expected: ")
    with pytest.raises(LogError, match=re.escape(str(beside))):
        report.raise_if_bad()
    assert cli("verify", "--all").code == 1


def test_a_run_with_only_a_side_log_is_found(kept: Requests, beside: Path, cli: Cli) -> None:
    LOG.unlink()
    done = cli("verify", "--all")
    (shown,) = json.loads(cli("verify", "--all", "--json").out)

    assert done.code == 1
    assert f"{LOG.absolute()} does not exist: there are only its side logs" in done.out
    assert (shown["workflow_id"], shown["seq"], len(shown["beside"])) == ("r", 0, 1)
    assert shown["beside"][0]["path"] == str(beside)


# ---------------------------------------------------------------- by the command line


def test_the_command_shows_agreement(kept: Requests, cli: Cli) -> None:
    done = cli("verify", "r", "--against", str(FILE))
    shown = json.loads(cli("verify", "--all", "--against", str(FILE), "--json").out)[0]["against"]

    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("ok      r  ")
    assert (shown["place"], shown["spans"], shown["equal"]) == ("spans.jsonl", 4, 4)
    assert [head["ok"] for head in shown["heads"]] == [True]


def test_the_command_shows_differences(kept: Requests, cli: Cli) -> None:
    span_of(kept[1])["name"] = "step \x1b[31mtreble"
    del kept[0]
    keep(FILE, kept)
    done = cli("verify", "r", "--against", str(FILE))
    shown = json.loads(cli("verify", "r", "--against", str(FILE), "--json").out)

    assert done.code == 1
    assert done.out.startswith("differs r  ")
    assert "\x1b" not in done.out
    assert not shown["ok"]
    assert shown["against"]["missing"]["count"] == 1
    assert shown["against"]["different"]["spans"][0]["differences"] == [
        "name is 'step \\x1b[31mtreble' there, 'step double' in the log"
    ]


# ---------------------------------------------------------------- files that are none


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<html>", "line 1 is not OTLP JSON: JSON is malformed"),
        ('{"resourceSpans": []}\nnone\n', "line 2 is not OTLP JSON: "),
        ('{"resourceSpans": []}\n\n[]\n', "line 3 is not OTLP JSON: Expected `object`"),
        ('{"resourceLogs": []}\n', "line 1 is not OTLP JSON: it has no `resourceSpans`"),
        ('{"resourceSpans": [{"scopeSpans": [{"spans": [7]}]}]}\n', "line 1 is not OTLP JSON: "),
        ('{"result": ' * 100_000, "line 1 is not OTLP JSON: it is nested too deeply"),
        ("\0\n", "line 1 is not OTLP JSON"),
    ],
)
def test_a_file_that_is_not_otlp_is_refused_with_the_line(
    kept: Requests, cli: Cli, text: str, said: str
) -> None:
    FILE.write_text(text, "utf-8")
    done = cli("verify", "r", "--against", str(FILE))

    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"error: cannot read spans from spans.jsonl: {said}")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("startTimeUnixNano", str(1 << 64)),
        ("startTimeUnixNano", "soon"),
        ("attributes", [{"key": "x", "value": {"intValue": "9" * 5000}}]),
        ("attributes", [{"key": "x", "value": {"doubleValue": "many"}}]),
        ("attributes", {"x": 1}),
    ],
)
def test_a_span_outside_otlp_is_refused(kept: Requests, field: str, value: Any) -> None:
    span_of(kept[1])[field] = value

    with pytest.raises(SpansError, match="line 2 is not OTLP JSON"):
        against(kept)


def test_values_nested_too_deeply_are_refused(kept: Requests) -> None:
    span_of(kept[1])["attributes"][0]["value"] = "HERE"
    keep(FILE, kept)
    deep = '{"arrayValue":{"values":[' * 50_000 + "{}" + "]}}" * 50_000
    FILE.write_text(FILE.read_text("utf-8").replace('"HERE"', deep), "utf-8")

    with pytest.raises(SpansError, match="line 2 is not OTLP JSON: it is nested too deeply"):
        verify("r", against=FILE)


def test_a_line_that_is_too_long_is_refused(
    kept: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otlp_json, "_LONGEST", 1 << 20)
    FILE.write_text(FILE.read_text("utf-8") + " " * (1 << 20) + "\n", "utf-8")

    with pytest.raises(SpansError, match="line 5 has more than 1 MiB"):
        verify("r", against=FILE)


@pytest.mark.slow
def test_spans_of_other_traces_take_no_memory(kept: Requests) -> None:
    others = copy.deepcopy(kept[1])
    others["resourceSpans"][0]["scopeSpans"][0]["scope"]["name"] = "httpx"
    span_of(others)["traceId"] = "f" * 32
    text = json.dumps(others) + "\n"
    with FILE.open("a", encoding="utf-8") as file:
        file.writelines(text.replace("f" * 32, f"{number:032x}") for number in range(20_000))
    assert verify("r", against=FILE).ok  # and everything is imported
    tracemalloc.start()
    report = verify("r", against=FILE)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert report.ok
    assert FILE.stat().st_size > 20 << 20
    assert peak < 2 << 20


def test_the_runs_own_log_is_not_a_file_of_spans(kept: Requests) -> None:
    with pytest.raises(SpansError, match="it has no `resourceSpans`"):
        verify("r", against=LOG)


def test_an_incomplete_last_line_is_skipped(kept: Requests) -> None:
    FILE.write_bytes(FILE.read_bytes() + b'{"resourceSpans": [{"res')
    report = verify("r", against=FILE)

    assert report.ok
    assert "the last line of spans.jsonl is incomplete, and was skipped" in report.notes


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_a_file_that_cannot_be_opened_is_named(kept: Requests, cli: Cli, name: str) -> None:
    done = cli("verify", "r", "--against", name)

    assert done.code == 1
    assert done.err.startswith(f"error: cannot read spans from {name}: it cannot be opened: ")


def test_a_link_to_a_file_of_spans_is_followed(kept: Requests) -> None:
    link = Path("latest.jsonl")
    link.symlink_to(FILE)

    assert verify("r", against=link).ok
