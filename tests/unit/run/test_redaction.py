"""Secrets are in no log, no blob, no span, no export and no report; what stays stored is told."""

from __future__ import annotations

import json
import logging
import string
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from commands import Cli
from crashes import Effects, die_at, go, killed
from handled_failures import both, handling
from tapps_otel import (
    JsonlSpanExporter,
    Redaction,
    annotate,
    configure,
    current_run,
    history,
    skip,
    step,
    verify,
    workflow,
)
from tapps_otel.errors import FailureDetailError, ResultOmittedError, SettingsError
from tapps_otel.log.store import Store
from tapps_otel.otel.delivery.otlp_exporter import OtlpExporter
from tapps_otel.otel.replay.run_spans import RunSpans
from tapps_otel.otel.transport.client import Answer, Client
from tapps_otel.otel.transport.destination import HTTP, Destination
from tapps_otel.redact import Rules, rules_of

USUAL = rules_of(True)
SECRETS = st.text(string.ascii_letters + string.digits, min_size=24, max_size=32).map("Xk9".__add__)
# Texts as they are met; the secret in each is `{}`.
TEXTS = [
    "cannot connect with password={}",
    '{{"api_key": "{}", "user": "ann"}}',
    "{{'client_secret': '{}'}}",
    "postgresql://ann:{}@db.example.org/orders",
    "GET https://example.org/?page=2&access_token={}&x=1",
    "Authorization: Basic {}",
    "the header was Bearer {}",
    "key sk-{} was refused",
    "ghp_{}",
    "-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----",
    "eyJhbGciOiJIUzI1.{}.c2ln",
]
NAMES = ["password", "DB_PASSWORD", "apiKey", "api-key", "accessToken", "auth.token", "set-cookie",
         "client_secret", "aws_secret_access_key", "Authorization", "credentials"]  # fmt: skip


class Collector(Client):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        super().__init__(Destination(HTTP, "http://127.0.0.1:4318"))
        self.got = b""

    def _send_once(self, request: bytes, seconds: float) -> Answer:
        self.got += request
        return Answer()

    def close(self) -> None: ...


class Traced:
    """A program with a provider, whose spans go to a collector and into the logs."""

    def __init__(self) -> None:
        self.collector = Collector()
        self.waiting = InMemorySpanExporter()
        self.provider = TracerProvider(
            resource=Resource({"service.name": "test"}), shutdown_on_exit=False
        )
        self.provider.add_span_processor(SimpleSpanProcessor(self.waiting))
        self.tracer = self.provider.get_tracer("library")

    def flush(self) -> None:
        spans = self.waiting.get_finished_spans()
        self.waiting.clear()
        captured = JsonlSpanExporter()
        captured.export(spans)
        captured.shutdown()
        OtlpExporter(self.collector).export(spans)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Traced:
    made = Traced()
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", made.provider)
    return made


def everything(folder: Path) -> bytes:
    """All that the files of a log folder hold."""
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def reports(cli: Cli, folder: Path, run: str, out: Path) -> str:
    """All that commands say of a run."""
    said = ""
    for command in (
        ["show", run],
        ["show", run, "--json"],
        ["export", run, "--format", "otlp-json"],
        ["export", run, "--format", "chrome-trace"],
        ["export", run, "--format", "csv"],
        ["timeline", run, "--html", str(out), "--force"],
    ):
        done = cli(*command, "--log-dir", str(folder))
        assert done.code == 0, (command, done)
        said += done.out + done.err
    return said + out.read_text()


class Refused(Exception):  # noqa: N818 - it is what it is
    def __init__(self, message: str, **attributes: object) -> None:
        super().__init__(message)
        self.__dict__.update(attributes)


# ---------------------------------------------------------------- nowhere


def test_secrets_are_in_no_place_that_is_written_sent_or_shown(
    traced: Traced, cli: Cli, log_dir: Path, tmp_path: Path
) -> None:
    configure(capture_inputs=True)

    @step
    def given(settings: dict[str, str], note: str) -> int:
        span = trace.get_current_span()
        span.set_attribute("request.note", note)
        span.set_attributes({f"x.{name}": value for name, value in settings.items()})
        span.add_event("sent", {"body": note, note: 1})
        with traced.tracer.start_as_current_span(f"GET {note}", attributes={"url": note}) as inner:
            inner.add_event("exception", {"exception.message": note})
            inner.set_status(trace.StatusCode.ERROR, note)
        annotate("said", note=note, **settings, listed=[note])
        return len(note)

    @step
    def failing(note: str, named: dict[str, str]) -> None:
        error = Refused(note, nested={"a": [note]}, **named)
        error.add_note(note)
        error.__cause__ = ValueError(note, {"deep": [{"b": note}]})
        error.__cause__.__context__ = ExceptionGroup(note, [KeyError(note)])
        raise error

    @step
    def skipping(note: str) -> None:
        skip(note)

    @workflow
    def flow() -> int:
        done = 0
        for text in texts:
            done += given(named, text)
            skipping(text)
            with pytest.raises(Refused):
                failing(text, named)
        raise Refused(texts[0], **named)

    @given_secret
    def check(secret: str) -> None:
        texts[:] = [one.format(secret) for one in TEXTS]
        named.update(dict.fromkeys(NAMES, secret))
        run = f"r-{secret}"[:4] + str(len(seen))
        seen.append(secret)
        with pytest.raises(Refused):
            go(flow, workflow_id=run)
        traced.flush()

        assert secret.encode() not in everything(log_dir)
        assert secret.encode() not in traced.collector.got
        assert secret not in reports(cli, log_dir, run, tmp_path / "page.html")
        assert verify(run).ok
        assert b"***" in everything(log_dir)

    texts: list[str] = []
    named: dict[str, str] = {}
    seen: list[str] = []
    check()


def given_secret(test: Callable[[str], None]) -> Callable[[], None]:
    """A few examples: each is a run with dozens of steps."""
    quick = settings(max_examples=2, suppress_health_check=list(HealthCheck))
    return quick(given(SECRETS)(test))


@given(SECRETS, st.sampled_from(TEXTS), st.text(max_size=20), st.text(max_size=20))
def test_texts(secret: str, form: str, before: str, after: str) -> None:
    text = f"{before} {form.format(secret)} {after}"
    redacted = USUAL.text(text)

    assert secret not in redacted
    assert USUAL.text(redacted) == redacted  # what is sent from the log is what was sent before


LABELS = [
    "password", "passwd", "pwd", "passphrase", "secret", "client_secret", "credential",
    "credentials",
    *(f"{kind}{between}key" for kind in ("api", "private", "secret", "access", "account")
      for between in ("", "_", "-")),
    *(f"{kind}_token"
      for kind in ("access", "auth", "refresh", "id", "session", "bearer", "api", "csrf")),
]  # fmt: skip
SEVERAL = "AbCdEf0123456789GhIjKl0123456789"
FORMS = [
    f"-----BEGIN RSA PRIVATE KEY-----{SEVERAL}", f"Bearer {SEVERAL}", f"bearer {SEVERAL}",
    f"eyJ{SEVERAL}.{SEVERAL}.{SEVERAL}", "AKIA0123456789ABCDEF", "ASIA0123456789ABCDEF",
    *(f"gh{kind}_{SEVERAL}" for kind in "pousr"), f"github_pat_{SEVERAL}", f"glpat-{SEVERAL}",
    f"sk-{SEVERAL}", f"sk_live_{SEVERAL}", f"rk_test_{SEVERAL}", f"xoxb-{SEVERAL}",
    f"AIza{SEVERAL}", f"npm_{SEVERAL}", f"pypi-{SEVERAL}", f"https://me:{SEVERAL}@example.org",
    f"authorization: Basic {SEVERAL}", f"cookie: a={SEVERAL}", f"?token={SEVERAL}",
]  # fmt: skip


@pytest.mark.parametrize("change", [str.lower, str.upper, str.title])
@pytest.mark.parametrize("label", LABELS)
def test_each_label_is_known_in_upper_and_lower_case(
    label: str, change: Callable[[str], str]
) -> None:
    assert SEVERAL not in USUAL.text(f'it is {{"{change(label)}": "{SEVERAL}"}}')


@pytest.mark.parametrize(
    "letter", ["i", "\N{LATIN SMALL LETTER DOTLESS I}", "\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}"]
)
def test_letters_that_are_taken_for_an_i_hide_no_label(letter: str) -> None:
    assert SEVERAL not in USUAL.text(f"AUTHOR{letter}ZATION: {SEVERAL}")


@pytest.mark.parametrize("secret", FORMS)
def test_each_form_of_a_secret_is_known(secret: str) -> None:
    assert USUAL.text(f"before {secret} after") != f"before {secret} after"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(SECRETS, st.sampled_from(NAMES), JSON, st.lists(st.booleans(), max_size=4))
def test_values_by_their_names(secret: str, name: str, other: Any, nesting: list[bool]) -> None:
    value: Any = {"other": other, name: {"inside": [secret]}}
    for is_list in nesting:
        value = [value] if is_list else {"a": value}
    redacted = USUAL.value(value)

    assert secret not in json.dumps(redacted)
    assert not USUAL.alters(redacted)
    assert secret.encode() not in USUAL.json(json.dumps(value).encode())


@pytest.mark.parametrize(
    "harmless",
    [
        "gen_ai.usage.input_tokens", "max_tokens", "token_count", "session.id", "key", "author",
        "secretary", "keyboard", "cookiecutter", "compass", "primary_key",
    ],
)  # fmt: skip
def test_other_names_are_left_alone(harmless: str) -> None:
    value = {harmless: "a text", "n": 1}

    assert USUAL.value(value) is value


@pytest.mark.parametrize(
    "harmless",
    [
        "unexpected token: }",
        "https://example.org:8080/a@b",
        "the password is wrong",
        "basic authentication failed",
        "sk-learn",
        "task-0123456789abcdef0123",
    ],
)
def test_other_texts_are_left_alone(harmless: str) -> None:
    assert USUAL.text(harmless) is harmless


@pytest.mark.parametrize(
    "unit", ["eyJ-", "password=", "://a:", "-----BEGIN ", "sk-", "a\\", "token"]
)
def test_long_texts_take_no_longer_than_their_length(unit: str) -> None:
    """It would not end in the time that a test has."""
    USUAL.text(unit * 100_000)


# ---------------------------------------------------------------- rules of one's own


def annotated(log: Any, **attributes: Any) -> dict[str, Any]:
    """The attributes of an annotation as the log has them."""

    @workflow
    def flow() -> None:
        annotate("a", **attributes)

    go(flow)
    (event,) = log("annotation")
    found: dict[str, Any] = event["attributes"]
    return found


def test_names_and_patterns_of_ones_own(log: Any) -> None:
    configure(
        redact=Redaction(keys=["card_number", "Kennwort für alle"], patterns=[r"\b\d{4}-\d{4}\b"])
    )
    found = annotated(
        log,
        cardNumber="x",
        order="1234-5678 paid",
        text='{"card-number": "y"}',
        password="z",
        n=1,
        kennwort_FÜR_alle="x",
    )

    assert found == {
        "cardNumber": "***", "order": "*** paid", "text": '{"card-number": ***}',
        "password": "***", "n": 1, "kennwort_FÜR_alle": "***",
    }  # fmt: skip


def test_a_function_of_ones_own(log: Any) -> None:
    def hook(name: str, text: str) -> str:
        if name == "broken":
            raise ValueError(text)
        return text.replace("ann", "somebody") if name == "user" else text

    configure(redact=Redaction(hook=hook, usual=False))

    assert annotated(log, user="ann", other="ann", broken="ann", password="ann") == {
        "user": "somebody", "other": "ann", "broken": "***", "password": "ann",
    }  # fmt: skip


def test_redaction_can_be_switched_off(log: Any) -> None:
    configure(redact=False)

    assert annotated(log, password="x") == {"password": "x"}


def test_rules_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAPPS_OTEL_REDACT", '{"keys": ["pin"], "patterns": ["x+"]}')
    assert configure().redact == Redaction(keys=["pin"], patterns=["x+"])

    monkeypatch.setenv("TAPPS_OTEL_REDACT", "false")
    assert configure().redact is False


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"patterns": ["("]}, "is not a regular expression"), ({"keys": "pin"}, "a list of strings")],
)
def test_rules_that_are_none(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Redaction(**wrong)


def test_rules_of_a_step_hold_for_it_alone(log: Any) -> None:
    @step(redact=Redaction(patterns=["ann"]))
    def private() -> None:
        annotate("a", user="ann", password="x")
        raise ValueError("ann")

    @step(redact=False)
    def public() -> None:
        annotate("a", user="ann", password="x")

    @workflow
    def flow() -> None:
        with pytest.raises(ValueError, match="ann"):
            private()
        public()

    go(flow)
    first, second = (one["attributes"] for one in log("annotation"))
    (failed,) = log("step_fail")

    assert first == {"user": "***", "password": "***"}
    assert failed["error"]["message"] == "***"
    assert failed["error"]["lost"] == {"args": "redacted: it holds a secret"}
    assert second == {"user": "ann", "password": "x"}


# ---------------------------------------------------------------- resume


def test_inputs_are_told_apart_although_they_are_redacted(did: Effects) -> None:
    configure(capture_inputs=True)

    @step
    def login(password: str) -> str:
        did("login")
        return password[:1]

    @workflow
    def flow() -> list[str]:
        found = [login("abc"), login("xyz")]
        die_at("end")
        return found

    killed(lambda: go(flow), at="end")

    assert go(flow) == ["a", "x"]
    assert did.count("login") == 2


def test_what_a_failure_lost_is_refused_when_it_is_read_again() -> None:
    def fail() -> None:
        raise Refused("password=hunter2", code=7, token="abc")

    flow = handling(fail, lambda error: (type(error).__name__, str(error)[:9], error.code))
    assert both(flow) == (("Refused", "password=", 7),) * 2

    for detail in ("token", "args"):
        reading = handling(fail, attrgetter(detail))
        killed(partial(go, reading, workflow_id=detail), at="after")
        with pytest.raises(FailureDetailError, match=f"{detail}.*redacted"):
            go(reading, workflow_id=detail)


def paying(did: Effects, **options: Any) -> Any:
    @step(**options)
    def issue() -> dict[str, str]:
        did("issue")
        return {"access_token": "zqj"}

    @step
    def harmless() -> str:
        did("harmless")
        return "x"

    @workflow
    def flow() -> str:
        found = issue()["access_token"] + harmless()
        die_at("end")
        return found

    return flow


@pytest.mark.parametrize("by_step", [True, False])
def test_results_are_stored_unless_they_must_not_be(
    by_step: bool, did: Effects, log: Any, log_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Then the step runs again."""
    configure(redact_results=not by_step)
    flow = paying(did, redact_results=by_step)
    with caplog.at_level(logging.WARNING, "tapps_otel"):
        killed(lambda: go(flow), at="end")
        assert go(flow) == "zqjx"

    assert did.count("issue") == 2
    assert did.count("harmless") == 1
    assert b"zqj" not in everything(log_dir).replace(b'"result":"zqjx"', b"")
    assert {one.get("result_omitted") for one in log("step_finish")} == {
        None,
        "redacted: it holds a secret",
    }
    assert "redact_results" in caplog.text


def test_results_are_stored_by_default(did: Effects) -> None:
    flow = paying(did)
    killed(lambda: go(flow), at="end")

    assert go(flow) == "zqjx"
    assert did.all == ["issue", "harmless"]


def test_the_result_of_a_skip_is_not_stored_either(did: Effects, log_dir: Path) -> None:
    @step(redact_results=True)
    def issue() -> str:
        did("issue")
        skip("known", result="password=zqj")
        return ""

    @workflow
    def flow() -> str:
        found = issue()[-3:]
        die_at("end")
        return found

    killed(lambda: go(flow), at="end")

    assert go(flow) == "zqj"
    assert did.count("issue") == 2
    assert b"=zqj" not in everything(log_dir)


def test_a_run_whose_result_is_not_stored_does_not_answer_another_call(log_dir: Path) -> None:
    configure(redact_results=True)

    @workflow
    def flow() -> dict[str, str]:
        return {"token": "zqj"}

    assert go(flow) == {"token": "zqj"}
    assert history("r").result_omitted == "redacted: it holds a secret"
    with pytest.raises(ResultOmittedError, match="start a run with another id"):
        go(flow)

    @workflow
    def around() -> dict[str, str]:
        return flow.options(workflow_id="r")()

    with pytest.raises(ResultOmittedError):
        go(around, workflow_id="around")
    assert b"zqj" not in everything(log_dir)


# ---------------------------------------------------------------- logs of other rules


def test_what_is_sent_and_exported_follows_the_rules_of_today(
    traced: Traced, cli: Cli, log_dir: Path
) -> None:
    configure(redact=False)

    @workflow
    def flow() -> None:
        annotate("a", password="hunter2")
        raise ValueError("password=hunter2")

    with pytest.raises(ValueError, match="hunter2"):
        go(flow)
    assert b"hunter2" in everything(log_dir)

    configure(redact=True)
    for form in ("otlp-json", "chrome-trace", "csv"):
        done = cli("export", "r", "--format", form, "--log-dir", str(log_dir))
        assert "hunter2" not in done.out
        assert "***" in done.out


def test_a_live_span_and_the_same_span_from_the_log_are_equal(
    traced: Traced, log_dir: Path
) -> None:
    @step(redact=Redaction(patterns=["ann"]))
    def one() -> None:
        span = trace.get_current_span()
        span.set_attribute("user", "ann")
        span.set_attribute("password", "x")

    @workflow
    def flow() -> None:
        one()

    go(flow)
    live = [one for one in traced.waiting.get_finished_spans() if one.name == "step one"]
    rebuilt = [one.span for one in RunSpans(Store(log_dir), "r") if one.span.name == "step one"]

    assert encode_spans(live) == encode_spans(rebuilt)
    assert live[0].attributes is not None
    assert {live[0].attributes[name] for name in ("user", "password")} == {"***"}


def test_a_text_that_was_harmless_under_one_name_is_hidden_under_another() -> None:
    harmless = {"note": "hunter2", "hunter2": "note"}
    for _ in range(3):
        assert USUAL.value(harmless) is harmless
        found = USUAL.value({**harmless, "password": "hunter2", "n": 1})
        assert found == {**harmless, "password": "***", "n": 1}


def test_equal_rules_are_compiled_once() -> None:
    assert rules_of(Redaction(keys=["a"])) is rules_of(Redaction(keys=["a"]))
    assert isinstance(USUAL, Rules)


def test_of_what_is_nested_too_deep_the_outline_is_kept() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    error = {"type": "builtins.ValueError", "args": nested, "lost": {}, "line": 5, "password": 7}
    error["password=hunter2x"] = 1

    assert USUAL.value(error) == {
        "type": "***", "args": [], "lost": {}, "line": 5, "password": "***", "password=***": "***",
    }  # fmt: skip


def test_a_named_tuple_with_a_secret_is_redacted(log: Any) -> None:
    class Point(NamedTuple):
        x: int
        note: str

    @workflow
    def flow() -> None:
        current_run().annotate("n", {"point": Point(1, "Bearer abcdefghijklmnop1234")})

    flow.options(workflow_id="r")()
    (annotation,) = history("r").annotations
    assert annotation.attributes == {"point": [1, "***"]}
