"""Encrypted values: no file has them, every reader with the key does, and nothing is lost."""

from __future__ import annotations

import base64
import contextvars
import copy
import json
import os
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from commands import LOGS, Cli, child
from crashes import Effects, die_at, go, in_child, killed
from independent_checker import check
from logs import forge
from tapps_otel import (
    AesGcmCodec,
    ExternalLog,
    annotate,
    answer,
    configure,
    diff,
    events,
    follow,
    history,
    pack,
    pause,
    resume,
    step,
    timeline,
    unpack,
    verify,
    workflow,
)
from tapps_otel.errors import (
    CodecError,
    DecryptionError,
    DivergenceError,
    EncryptionKeyError,
    LogError,
    RunPausedError,
    SettingsError,
    StoredResultError,
)
from tapps_otel.log.blobs import INLINE_LIMIT
from tapps_otel.run.resolving import resolve

SECRET = "Xk9canary7"
LARGE = SECRET * (INLINE_LIMIT // len(SECRET) + 1)


def new_key() -> str:
    return base64.b64encode(os.urandom(32)).decode()


@pytest.fixture
def old() -> str:
    """The key that runs are encrypted with; it is configured."""
    key = new_key()
    configure(encryption_keys={"old": key}, capture_inputs=True)
    return key


def without_key() -> None:
    configure(encryption_keys=None)


class DeclinedError(Exception):
    """It has what a handler needs, and is not made by its message."""

    def __init__(self, body: str) -> None:
        self.body = body
        super().__init__("declined")


@step
def shout(text: str) -> str:
    return text.upper()


@step
def enlarge(text: str) -> str:
    return text * (INLINE_LIMIT // len(text) + 1)


@step
def decline(text: str) -> None:
    raise DeclinedError(text)


@workflow
def flow(text: str, large: str = "") -> list[str]:
    found = [shout(text), enlarge(text)]
    try:
        decline(text)
    except DeclinedError as error:
        found.append(error.body)
    die_at("the end")
    return [*found, shout("at the end"), large]


EXPECTED = [SECRET.upper(), enlarge(SECRET), SECRET, "AT THE END", LARGE]


def stored(log_dir: Path) -> bytes:
    """All that a folder of logs holds; a lease comes and goes."""
    return b"".join(
        path.read_bytes()
        for path in sorted(log_dir.rglob("*"))
        if path.is_file() and path.suffix != ".lease"
    )


# ---------------------------------------------------------------- what is stored


def test_no_file_of_a_run_has_a_value_or_the_digest_of_one(log_dir: Path, old: str) -> None:
    assert go(flow, SECRET, LARGE) == EXPECTED

    found = stored(log_dir)
    assert len(found) > 3 * INLINE_LIMIT  # inputs and results are there
    for text in (SECRET, SECRET.upper(), old, base64.b64encode(SECRET.encode()).decode()):
        assert text.encode() not in found
    steps = [one for one in events("r") if one.event_type == "step_start"]
    assert all(one.inputs_digest for one in steps)
    assert not any(str(one.inputs_digest).encode() in found for one in steps)


def test_without_a_codec_a_line_has_no_trace_of_encryption(log: Callable[..., Any]) -> None:
    configure(capture_inputs=True)

    go(flow, SECRET)

    assert not any("encrypted" in one for one in log())
    assert history("r").locked is None


def test_names_messages_and_annotations_stay_in_plain_text(
    log: Callable[..., Any], old: str
) -> None:
    @workflow
    def told(text: str) -> None:
        annotate("note", text=text)
        raise ValueError("told")

    with pytest.raises(ValueError, match="told"):
        go(told, "a text")

    (note,) = log("annotation")
    (end,) = log("workflow_end")
    assert note["attributes"] == {"text": "a text"}
    assert end["error"]["message"] == "told"
    assert "args" not in end["error"]
    assert "encrypted" in end


def test_equal_values_have_different_ciphertexts(log: Callable[..., Any], old: str) -> None:
    @workflow
    def twice() -> None:
        shout(SECRET)
        shout(SECRET)

    go(twice)

    first, second = (one["encrypted"]["data"] for one in log("step_finish"))
    assert first != second


def test_any_text_survives_encryption(old: str) -> None:
    odd = "a lone surrogate \udc80, a NUL \0 and ä"

    @step(name="größer")
    def same(text: str) -> str:
        return text

    @workflow
    def odd_flow(text: str) -> str:
        found = same(text)
        die_at("the end")
        return found

    killed(lambda: go(odd_flow, odd), at="the end")

    assert odd_flow.resume("r") == odd
    assert odd_flow.resume("r") == odd  # from its log


# ---------------------------------------------------------------- resume


def test_a_killed_run_is_resumed_as_if_it_had_not_been(old: str, did: Effects) -> None:
    @step
    def counted(text: str) -> str:
        did("counted")
        return text * (INLINE_LIMIT // len(text) + 1)

    @workflow
    def long(text: str, large: str) -> list[str]:
        found = [counted(text), counted(large)]
        die_at("the end")
        return [*found, shout(text)]

    killed(lambda: go(long, SECRET, LARGE), at="the end")

    assert long.resume("r") == [enlarge(SECRET), LARGE, SECRET.upper()]
    assert did.all == ["counted"] * 2
    assert verify("r").ok


@pytest.mark.parametrize("seq", range(1, 11))
def test_a_run_that_is_killed_at_any_event_gives_the_same(seq: int, old: str) -> None:
    killed(lambda: go(flow, SECRET, LARGE), after=seq)

    assert go(flow, SECRET, LARGE) == EXPECTED
    assert verify("r").ok


@pytest.mark.parametrize(
    "attempt",
    [
        lambda: flow.resume("r"),
        lambda: go(flow, SECRET, LARGE),
        lambda: resume("r"),
        lambda: resolve("r", "decline", result=b"null"),
    ],
    ids=["resume of the workflow", "call under the id", "resume by id", "resolve"],
)
def test_without_the_key_nothing_runs_and_nothing_is_written(
    attempt: Callable[[], object], log_dir: Path, old: str
) -> None:
    killed(lambda: go(flow, SECRET, LARGE), at="the end")
    before = stored(log_dir)
    without_key()

    with pytest.raises(EncryptionKeyError, match=r"run 'r'.* key 'old'.*not configured") as caught:
        attempt()

    assert caught.value.key_id == "old"
    assert "TAPPS_OTEL_ENCRYPTION_KEYS" in str(caught.value)
    assert stored(log_dir) == before


def test_the_error_of_a_lost_key_names_the_step(old: str) -> None:
    @workflow
    def plain_inputs() -> str:
        found = shout(SECRET)
        die_at("the end")
        return found

    configure(encryption_keys=None)
    killed(lambda: go(plain_inputs), before="step_start shout")  # its inputs are in plain text
    configure(encryption_keys={"old": old})
    killed(lambda: go(plain_inputs), at="the end")
    without_key()

    with pytest.raises(EncryptionKeyError, match=r"step_start of step 'shout'") as caught:
        go(plain_inputs)

    assert isinstance(caught.value, LogError)


def test_a_completed_run_gives_its_result_with_the_key_alone(old: str) -> None:
    go(flow, SECRET, LARGE)

    assert go(flow, SECRET, LARGE) == EXPECTED
    without_key()
    with pytest.raises(EncryptionKeyError):
        go(flow, SECRET, LARGE)


def test_another_key_of_that_id_is_an_error_of_its_own(log_dir: Path, old: str) -> None:
    killed(lambda: go(flow, SECRET), at="the end")
    before = stored(log_dir)
    configure(encryption_keys={"old": new_key()})

    with pytest.raises(DecryptionError, match=r"run 'r'.*key 'old'.*another key of this id"):
        flow.resume("r")

    assert stored(log_dir) == before
    configure(encryption_keys={"old": old})
    assert go(flow, SECRET) == [*EXPECTED[:4], ""]


def test_a_run_that_began_in_plain_text_is_continued_encrypted(
    log: Callable[..., Any], old: str
) -> None:
    without_key()
    killed(lambda: go(flow, SECRET), at="the end")
    configure(encryption_keys={"old": old})

    assert go(flow, SECRET) == [*EXPECTED[:4], ""]
    assert next(one["seq"] for one in log() if "encrypted" in one) > 8


# ---------------------------------------------------------------- rotation


def test_after_a_rotation_old_runs_are_read_and_new_values_use_the_new_key(
    log: Callable[..., Any], old: str
) -> None:
    killed(lambda: go(flow, SECRET, LARGE), at="the end")
    configure(encryption_keys={"new": new_key(), "old": old})

    assert go(flow, SECRET, LARGE) == EXPECTED
    used = [one["encrypted"]["key"] for one in log() if "encrypted" in one]
    assert used == sorted(used, reverse=True)  # old, ..., new, ...
    assert set(used) == {"old", "new"}


def test_once_the_old_key_is_gone_its_runs_are_refused(old: str) -> None:
    killed(lambda: go(flow, SECRET), at="the end")
    configure(encryption_keys={"new": new_key()})

    with pytest.raises(EncryptionKeyError, match="'old'"):
        flow.resume("r")


# ---------------------------------------------------------------- an attacker with the file


def rewritten(log_dir: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Change a log and make its chain anew, as whoever can write the file can."""
    found = check(log_dir / "r.jsonl")
    change(found)
    for one in found:
        one.pop("sha")
    forge(log_dir, "r", found)


def swap(found: list[dict[str, Any]]) -> None:
    one, other = (at for at in found if at["event_type"] == "step_start")
    one["encrypted"], other["encrypted"] = other["encrypted"], one["encrypted"]


def swap_blobs(found: list[dict[str, Any]]) -> None:
    one, other = (at for at in found if at["event_type"] == "step_finish")
    one["result_blob"], other["result_blob"] = other["result_blob"], one["result_blob"]


def cut(found: list[dict[str, Any]]) -> None:
    found[2]["encrypted"]["data"] = ""


def rename(found: list[dict[str, Any]]) -> None:
    found[2]["step_id"] = "other"


@workflow
def two(first: str, second: str) -> list[str]:
    found = [enlarge(first), enlarge(second)]
    die_at("the end")
    return found


@pytest.mark.parametrize("change", [swap, swap_blobs, cut, rename])
def test_changed_ciphertexts_are_found(
    change: Callable[[list[dict[str, Any]]], object], log_dir: Path, old: str
) -> None:
    killed(lambda: go(two, SECRET, SECRET[::-1]), at="the end")
    rewritten(log_dir, change)
    assert verify("r").ok  # whoever can write the file can make a chain

    with pytest.raises(DecryptionError, match="it was changed"):
        two.resume("r")


def test_a_value_in_plain_text_beside_the_ciphertext_does_not_count(
    log_dir: Path, old: str
) -> None:
    def add(found: list[dict[str, Any]]) -> None:
        found[0]["inputs"] = {"first": "x", "second": "y"}

    killed(lambda: go(two, SECRET, SECRET[::-1]), at="the end")
    rewritten(log_dir, add)

    assert two.resume("r") == [enlarge(SECRET), enlarge(SECRET[::-1])]


def test_no_log_can_claim_that_its_values_were_decrypted(log_dir: Path, old: str) -> None:
    def claim(found: list[dict[str, Any]]) -> None:
        for one in found:
            if "encrypted" in one:
                one["encrypted"]["problem"] = ""

    killed(lambda: go(two, "a", "b"), at="the end")
    rewritten(log_dir, claim)
    without_key()

    with pytest.raises(EncryptionKeyError):
        two.resume("r")


def test_a_ciphertext_of_another_run_is_refused(log_dir: Path, old: str) -> None:
    killed(lambda: go(two, SECRET, "b", workflow_id="other"), at="the end")
    killed(lambda: go(two, "a", "b"), at="the end")
    other = check(log_dir / "other.jsonl")

    def replace(found: list[dict[str, Any]]) -> None:
        found[0]["encrypted"] = copy.deepcopy(other[0]["encrypted"])
        found[0]["timestamp"] = other[0]["timestamp"]

    rewritten(log_dir, replace)
    with pytest.raises(DecryptionError):
        two.resume("r")


# ---------------------------------------------------------------- readers


def test_python_readers_have_the_values_with_the_key(old: str) -> None:
    go(flow, SECRET)

    (begin,) = (one for one in follow("r") if one.event_type == "workflow_start")
    assert begin.inputs == {"text": SECRET, "large": ""}
    (failed,) = (one for one in events("r") if one.event_type == "step_fail")
    assert failed.error is not None
    assert failed.error["attributes"] == {"body": SECRET}
    found = history("r")
    assert found.by_id["shout"].result == json.dumps(SECRET.upper()).encode()
    assert found.locked is None


def test_python_readers_tell_without_the_key(old: str) -> None:
    go(flow, SECRET)
    without_key()

    (begin,) = (one for one in events("r") if one.event_type == "workflow_start")
    assert begin.inputs is None
    assert begin.encrypted is not None
    assert begin.encrypted["key"] == "old"
    found = history("r")
    assert str(found.locked) == "encrypted with key old: this key is not configured"
    assert found.by_id["shout"].result_locked is not None
    with pytest.raises(EncryptionKeyError):
        _ = found.result
    with pytest.raises(EncryptionKeyError):
        diff("r", "r")
    assert [one.step_id for one in timeline("r").steps][:2] == ["shout", "enlarge"]


def test_a_failed_run_has_no_result_that_is_locked(cli: Cli, log_dir: Path, old: str) -> None:
    @workflow
    def failing() -> None:
        decline(SECRET)

    with pytest.raises(DeclinedError):
        go(failing)
    without_key()

    found = history("r")
    assert found.result is None
    assert found.result_locked is None
    assert found.error_locked is not None
    shown = cli("show", "r", "--log-dir", str(log_dir)).out
    assert "result" not in shown
    assert "details   encrypted with key old" in shown


def test_commands_show_the_values_with_the_key(cli: Cli, log_dir: Path, old: str) -> None:
    go(flow, SECRET)

    for command in ("show r", "show r shout", "show r --json", "timeline r --html page.html"):
        done = cli(*command.split(), "--log-dir", str(log_dir))
        shown = done.out + (Path("page.html").read_text() if "--html" in command else "")
        assert (done.code, SECRET in shown) == (0, True), command
    assert cli("diff", "r", "r", "--log-dir", str(log_dir)).code == 0


def test_commands_tell_without_the_key(cli: Cli, log_dir: Path, old: str) -> None:
    go(flow, SECRET)
    without_key()

    for command in (
        "show r", "show r shout", "show r enlarge", "show r -v", "timeline r --html page.html"
    ):  # fmt: skip
        done = cli(*command.split(), "--log-dir", str(log_dir))
        shown = done.out + (Path("page.html").read_text() if "--html" in command else "")
        assert done.code == 0
        assert "encrypted with key old: this key is not configured" in shown, command
        assert SECRET not in shown
    found = json.loads(cli("show", "r", "--json", "--log-dir", str(log_dir)).out)
    assert found["result_locked"]["key"] == found["steps"][0]["result_locked"]["key"] == "old"
    refused = cli("diff", "r", "r", "--log-dir", str(log_dir))
    assert (refused.code, "'old'" in refused.err) == (6, True)


def test_runs_are_verified_packed_and_unpacked_without_the_key(
    log_dir: Path, tmp_path: Path, old: str
) -> None:
    killed(lambda: go(flow, SECRET, LARGE), at="the end")
    without_key()

    assert verify("r").ok
    pack("r", tmp_path / "r.zip")
    unpack(tmp_path / "r.zip", log_dir=tmp_path / "there")

    assert SECRET.encode() not in stored(tmp_path / "there")
    configure(encryption_keys={"old": old})
    named = flow.options(workflow_id="r", log_dir=tmp_path / "there")
    assert named(SECRET, LARGE) == EXPECTED


@pytest.mark.parametrize("form", ["otlp-json", "chrome-trace", "csv"])
def test_exports_have_no_value(form: str, cli: Cli, log_dir: Path, old: str) -> None:
    go(flow, SECRET)

    done = cli("export", "r", "-f", form, "-o", "out", "--log-dir", str(log_dir))

    assert done.code == 0, done.err
    assert SECRET not in Path("out").read_text()


def test_resolve_encrypts_the_result_that_it_is_given(log_dir: Path, old: str) -> None:
    @step(on_interrupted="fail")
    def pay(text: str) -> str:
        die_at("paying")
        return text

    @workflow
    def payment(text: str) -> str:
        return pay(text)

    killed(lambda: go(payment, SECRET), at="paying")
    resolve("r", "pay", result=json.dumps(LARGE).encode())

    assert payment.resume("r") == LARGE
    assert SECRET.encode() not in stored(log_dir)


def test_an_answer_is_encrypted_and_needs_the_key(log_dir: Path, old: str) -> None:
    @workflow
    def asking() -> str:
        return pause("which?", type=str).upper()

    with pytest.raises(RunPausedError):
        go(asking)
    without_key()
    with pytest.raises(EncryptionKeyError):
        answer("r", SECRET)
    configure(encryption_keys={"old": old})
    answer("r", SECRET)

    assert SECRET.encode() not in stored(log_dir)
    assert asking.resume("r") == SECRET.upper()


# ---------------------------------------------------------------- other runs


def test_runs_of_executors_are_encrypted(log_dir: Path, old: str) -> None:
    log = ExternalLog("crew")
    log.run_begin("crew", name="crew", run_id="r", inputs={"text": SECRET})
    log.step_begin("step", parent="crew", name="step")
    log.step_end("step", result={"text": LARGE})
    log.run_end("crew")

    assert SECRET.encode() not in stored(log_dir)
    found = history("r")
    assert found.inputs == json.dumps({"text": SECRET}, separators=(",", ":")).encode()
    assert found.locked is None


def test_child_runs_are_encrypted_and_resumed_with_their_parents(
    log_dir: Path, old: str, did: Effects
) -> None:
    @workflow
    def child(text: str) -> str:
        did("child")
        return shout(text)

    @workflow
    def parent(text: str) -> str:
        found = child.options(workflow_id="c")(text)
        die_at("the end")
        return found

    killed(lambda: go(parent, SECRET), at="the end")

    assert SECRET.upper().encode() not in stored(log_dir)
    assert go(parent, SECRET) == SECRET.upper()
    assert did.all == ["child"]


def test_what_redaction_would_not_store_is_stored_encrypted(log_dir: Path, old: str) -> None:
    configure(redact_results=True)

    @step
    def login() -> dict[str, str]:
        return {"password": SECRET}

    @workflow
    def session() -> str:
        found = login()
        die_at("the end")
        return found["password"]

    killed(lambda: go(session), at="the end")

    assert SECRET.encode() not in stored(log_dir)
    assert (
        history("r").by_id["login"].result
        == json.dumps({"password": SECRET}, separators=(",", ":")).encode()
    )
    assert session.resume("r") == SECRET


# ---------------------------------------------------------------- messages


@step
def break_annotation() -> dict[int, str]:
    return {SECRET: "x"}  # type: ignore[dict-item]


@step
def name_an_object() -> dict[str, Any]:
    return {SECRET: object()}


@step
def fail_with_values() -> None:
    error = ValueError("told")
    error.add_note(SECRET)
    raise error from KeyError(SECRET)


@step
def fail_in_context() -> None:
    try:
        raise KeyError(SECRET)
    except KeyError:
        raise ValueError("told")  # noqa: B904 - the context is what is tested


@step
def fail_as_group() -> None:
    noted = ValueError("told")
    noted.add_note(SECRET)
    raise ExceptionGroup(
        "several", [noted, KeyError(SECRET), ExceptionGroup("", [OSError(SECRET)])]
    )


@step
def call_another_run() -> None:
    flow.options(workflow_id="child")(SECRET)


@pytest.mark.parametrize(
    "failing",
    [
        break_annotation,
        name_an_object,
        fail_with_values,
        fail_in_context,
        fail_as_group,
        call_another_run,
    ],
    ids=lambda one: one.__name__,
)
@pytest.mark.parametrize("outcome", ["failed", "handled"])
def test_no_message_or_stack_has_a_value(
    failing: Callable[[], object], outcome: str, log_dir: Path, old: str
) -> None:
    go(flow, "other inputs", workflow_id="child")

    @workflow
    def failing_flow() -> None:
        try:
            failing()
        except Exception:
            if outcome == "failed":
                raise

    if outcome == "failed":
        with pytest.raises(Exception) as caught:
            go(failing_flow)
        assert SECRET in "".join(traceback.format_exception(caught.value))  # on the terminal
    else:
        go(failing_flow)

    assert SECRET.encode() not in stored(log_dir)
    *_, end = (one for one in events("r") if one.event_type == "step_fail")
    assert end.error is not None
    assert SECRET in end.error["traceback"]
    assert "line" in end.error["stack"]


def test_a_divergence_has_no_value_and_no_digest(log_dir: Path, old: str) -> None:
    given = [SECRET]

    @workflow
    def diverging() -> None:
        shout(given[0])
        die_at("the end")

    for captured in (True, False):
        configure(capture_inputs=captured)
        run = f"captured-{captured}"
        killed(partial(go, diverging, workflow_id=run), at="the end")
        (begin,) = (one for one in events(run) if one.event_type == "step_start")
        given[0] = SECRET[::-1]
        with pytest.raises(DivergenceError) as caught:
            go(diverging, workflow_id=run)

        shown = "".join(traceback.format_exception(caught.value))
        assert (SECRET if captured else str(begin.inputs_digest)) in shown
        found = stored(log_dir)
        for text in (SECRET, SECRET[::-1], str(begin.inputs_digest), "now:"):
            assert text.encode() not in found
        given[0] = SECRET


def test_a_stored_result_that_no_longer_fits_is_not_quoted(log_dir: Path, old: str) -> None:
    @step(name="typed")
    def text() -> str:
        return SECRET

    @step(name="typed")
    def number() -> int:
        return 1

    made: list[Callable[[], object]] = [text]

    @workflow
    def changing() -> object:
        found = made[0]()
        die_at("the end")
        return found

    killed(lambda: go(changing), at="the end")
    made[0] = number
    with pytest.raises(StoredResultError):
        go(changing)

    assert SECRET.encode() not in stored(log_dir)


def test_the_command_line_shows_what_a_message_may_not_have() -> None:
    Path("flow.py").write_text(MODULE.format(configured=""))
    keys = {"TAPPS_OTEL_ENCRYPTION_KEYS": f"env:{new_key()}"}
    child("run", "flow.py:flow", "--id", "c", "--input", '{"text": "x"}', DIE="1", **keys)

    refused = child("run", "flow.py:flow", "--id", "c", "--input", '{"text": "y"}', **keys)

    assert refused.code != 0
    assert 'then: {"text":"x"}' in refused.err
    assert 'now:  {"text":"y"}' in refused.err


def test_sent_and_exported_stacks_have_frames_alone(cli: Cli, log_dir: Path, old: str) -> None:
    @workflow
    def failing() -> None:
        fail_with_values()

    with pytest.raises(ValueError, match="told"):
        go(failing)

    assert cli("export", "r", "-f", "otlp-json", "-o", "out", "--log-dir", str(log_dir)).code == 0
    found = Path("out").read_text()
    assert SECRET not in found
    assert "in fail_with_values" in found
    assert "ValueError: told" in found


# ---------------------------------------------------------------- codecs of users


class Reversing:
    """A codec that fails when it is told to."""

    key_id = "mirror"

    def __init__(self) -> None:
        self.failing = False

    def encode(self, data: bytes, context: bytes) -> bytes:
        if self.failing:
            raise ConnectionError("no key service")
        return data[::-1]

    def decode(self, data: bytes, context: bytes, key_id: str) -> bytes:
        if self.failing:
            raise ConnectionError("no key service")
        return data[::-1]


def test_a_codec_of_the_user_is_used_without_any_package(log_dir: Path) -> None:
    configure(codec=Reversing())
    killed(lambda: go(flow, SECRET, LARGE), at="the end")

    assert SECRET.encode() not in stored(log_dir)
    assert go(flow, SECRET, LARGE) == EXPECTED


def test_while_a_codec_fails_events_wait_and_nothing_is_lost(log: Callable[..., Any]) -> None:
    codec = Reversing()
    configure(codec=codec)

    @step
    def outage() -> str:
        codec.failing = True
        return "during the outage"

    @step
    def recover() -> str:
        codec.failing = False
        return "after it"

    @workflow
    def through() -> list[str]:
        return [outage(), recover()]

    assert go(through) == ["during the outage", "after it"]

    found = log()
    assert [(one["event_type"], one.get("step_id")) for one in found] == [
        ("workflow_start", None),
        ("step_start", "outage"),
        ("step_finish", "outage"),
        ("step_start", "recover"),
        ("step_finish", "recover"),
        ("workflow_end", None),
    ]
    assert found[2]["late"] is True
    assert [one.result for one in events("r") if one.event_type == "step_finish"] == [
        "during the outage",
        "after it",
    ]


def test_a_codec_that_fails_stops_the_run_where_the_log_must_not_fail(did: Effects) -> None:
    codec = Reversing()
    configure(codec=codec, on_log_failure="stop")

    @step
    def work(number: int) -> None:
        did(f"work {number}")
        codec.failing = True

    @workflow
    def stopping() -> None:
        work(1)
        work(2)

    with pytest.raises(LogError, match="no key service"):
        go(stopping)

    assert did.all == ["work 1"]


def test_a_codec_that_fails_to_read_is_told(did: Effects) -> None:
    codec = Reversing()
    configure(codec=codec)
    killed(lambda: go(flow, SECRET), at="the end")
    codec.failing = True

    with pytest.raises(CodecError, match=r"no key service.*Try again"):
        go(flow, SECRET)

    codec.failing = False
    assert go(flow, SECRET) == [*EXPECTED[:4], ""]


@pytest.mark.parametrize(
    ("key_id", "encrypted"),
    [
        ("k", "text"),
        ("k", None),
        (7, b"data"),
        ("two\nlines", b"data"),
        ("", b"data"),
        ("x" * 300, b"data"),
        ("\udc80", b"data"),
    ],
    ids=["text", "nothing", "a number", "two lines", "no id", "a long id", "a surrogate"],
)
@pytest.mark.parametrize("text", ["small", LARGE], ids=["small", "large"])
def test_what_a_codec_returns_is_checked_before_it_is_acknowledged(
    key_id: Any, encrypted: Any, text: str, did: Effects
) -> None:
    class Wrong(Reversing):
        broken = True

        def encode(self, data: bytes, context: bytes) -> bytes:
            return encrypted if self.broken else super().encode(data, context)

    codec = Wrong()
    configure(codec=codec, on_log_failure="stop")
    if isinstance(encrypted, bytes):
        codec.key_id = key_id
        with pytest.raises(SettingsError, match="key_id"):
            configure(codec=codec)

    with pytest.raises(LogError, match="codec cannot encrypt"):
        go(flow, text)

    codec.broken, codec.key_id = False, "mirror"
    assert go(flow, text)[0] == text.upper()
    assert verify("r").ok


def test_what_a_codec_quotes_is_not_written(log_dir: Path) -> None:
    class Quoting(Reversing):
        def encode(self, data: bytes, context: bytes) -> bytes:
            if self.failing:
                self.failing = False
                raise ValueError(f"cannot encrypt {data!r}")
            return super().encode(data, context)

    codec = Quoting()
    configure(codec=codec)

    @workflow
    def quoting() -> str:
        codec.failing = True
        return shout(SECRET)

    assert go(quoting) == SECRET.upper()
    assert SECRET.upper().encode() not in stored(log_dir)
    assert SECRET.encode() not in stored(log_dir)


def test_large_values_wait_for_a_codec_too(did: Effects, log_dir: Path) -> None:
    codec = Reversing()
    codec.failing = True
    configure(codec=codec, capture_inputs=True)

    @step
    def large(text: str) -> str:
        did("large")
        return text

    @step
    def recover() -> None:
        codec.failing = False

    @workflow
    def through(text: str) -> str:
        found = large(text)
        recover()
        return found

    assert go(through, LARGE) == LARGE

    found = history("r")
    assert found.by_id["large"].result_omitted is None
    assert found.by_id["large"].result_blob is not None
    assert found.result_blob is not None
    assert SECRET.encode() not in stored(log_dir)
    assert verify("r").ok
    assert go(through, LARGE) == LARGE
    assert did.all == ["large"]


def test_a_codec_may_wait_for_a_thread_that_writes_to_the_same_log(
    log: Callable[..., Any],
) -> None:
    class Threaded(Reversing):
        def encode(self, data: bytes, context: bytes) -> bytes:
            context_here = contextvars.copy_context()
            return others.submit(context_here.run, self._encode, data).result(timeout=60)

        def _encode(self, data: bytes) -> bytes:
            with suppress(LookupError):  # the run has not begun, or has ended
                annotate("key service called")
            return data[::-1]

    configure(codec=Threaded())

    with ThreadPoolExecutor(1) as others:
        assert go(flow, SECRET, LARGE) == EXPECTED

    assert len(log("annotation")) > len(EXPECTED)
    assert verify("r").ok


def test_while_a_codec_waits_other_threads_write(log: Callable[..., Any]) -> None:
    """The slow step's end is encrypted while another thread writes a whole step."""
    written = threading.Event()

    class Slow(Reversing):
        def encode(self, data: bytes, context: bytes) -> bytes:
            if b"slow result" in data:
                assert written.wait(timeout=60)
            return super().encode(data, context)

    configure(codec=Slow())

    @step
    def slow() -> str:
        return "slow result"

    @workflow
    def concurrent() -> None:
        here = contextvars.copy_context()
        with ThreadPoolExecutor(1) as others:
            waits = others.submit(here.run, slow)
            shout("meanwhile")
            written.set()
            waits.result()

    go(concurrent)

    ends = [one["step_id"] for one in log("step_finish")]
    assert ends == ["shout", "slow"]


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_a_codec_may_return_any_bytes(kind: Callable[[bytes], Any]) -> None:
    class Buffers(Reversing):
        def encode(self, data: bytes, context: bytes) -> Any:
            return kind(super().encode(data, context))

    configure(codec=Buffers())

    assert go(flow, SECRET, LARGE) == EXPECTED
    assert go(flow, SECRET, LARGE) == EXPECTED  # from its log


def test_a_key_that_changes_while_a_value_is_encrypted_is_named_right() -> None:
    class Rotating:
        """Rotates in the middle of its first encryption."""

        def __init__(self) -> None:
            self.keys = ["first"]

        @property
        def key_id(self) -> str:
            return self.keys[-1]

        def encode(self, data: bytes, context: bytes) -> bytes:
            if len(self.keys) == 1:
                self.keys.append("second")
            return self.key_id.encode() + data[::-1]

        def decode(self, data: bytes, context: bytes, key_id: str) -> bytes:
            if not data.startswith(key_id.encode()):
                raise ValueError("of another key")
            return data.removeprefix(key_id.encode())[::-1]

    configure(codec=Rotating())

    assert go(flow, SECRET) == go(flow, SECRET)
    assert history("r").locked is None


# ---------------------------------------------------------------- keys


@pytest.mark.parametrize("value", ["", " ", ","])
def test_a_variable_without_a_key_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAPPS_OTEL_ENCRYPTION_KEYS", value)

    with pytest.raises(SettingsError, match=r"TAPPS_OTEL_ENCRYPTION_KEYS.*no key"):
        configure()


def test_keys_are_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    new = new_key()
    monkeypatch.setenv("TAPPS_OTEL_ENCRYPTION_KEYS", f" new:{new},\n old:{new_key()}\n")

    found = configure().codec

    assert found is not None
    assert found.key_id == "new"
    assert found.decode(AesGcmCodec({"new": new}).encode(b"x", b"y"), b"y", "new") == b"x"


@pytest.mark.parametrize("key", [b"x" * 32, base64.urlsafe_b64encode(b"\xfb\xff" * 16).decode()])
def test_a_key_is_bytes_or_either_base64(key: str | bytes) -> None:
    codec = AesGcmCodec({"k": key})

    assert codec.decode(codec.encode(b"data", b"here"), b"here", "k") == b"data"
    with pytest.raises(ValueError, match="tag"):
        codec.decode(codec.encode(b"data", b"here"), b"there", "k")
    with pytest.raises(LookupError):
        codec.decode(b"", b"", "other")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"encryption_keys": SECRET}, "ID:KEY"),
        ({"encryption_keys": f"a:{SECRET}"}, "openssl rand -base64 32"),
        ({"encryption_keys": {"a": SECRET}}, "openssl rand -base64 32"),
        ({"encryption_keys": {SECRET + "/=": "a"}}, "id of an encryption key"),
        ({"encryption_keys": {}}, "no encryption key"),
        ({"encryption_keys": f"{SECRET}:2026"}, "encryption key 1"),
        ({"encryption_keys": f"a:{'A' * 43}=,a:{SECRET}"}, "occurs before"),
        ({"encryption_keys": [SECRET]}, "encryption_keys"),
        ({"codec": SECRET}, "codec"),
    ],
)
def test_a_wrong_key_is_refused_and_not_shown(given: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        configure(**given)

    assert said in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None


def test_settings_and_codec_do_not_show_keys(old: str) -> None:
    found = configure()

    assert old not in f"{found!r} {found} {found.codec!r}"
    assert "encryption_keys='***'" in repr(found)


def test_a_missing_package_is_named() -> None:
    def use() -> str:
        import sys

        sys.modules["cryptography.hazmat.primitives.ciphers.aead"] = None  # type: ignore[assignment]
        try:
            configure(encryption_keys={"k": new_key()})
        except SettingsError as error:
            return str(error)
        return ""

    assert "pip install 'tapps_otel[encrypt]'" in in_child(use).value


# ---------------------------------------------------------------- the command line

MODULE = """
import os
from tapps_otel import configure, step, workflow
{configured}
@step
def shout(text: str) -> str:
    return text.upper()
@workflow
def flow(text: str) -> str:
    found = shout(text)
    if os.environ.get("DIE"):
        os._exit(9)
    return found + "!"
"""


def test_commands_use_the_key_that_the_module_of_the_workflow_configures() -> None:
    configured = f"configure(encryption_keys={{'own': {b'x' * 32!r}}})"
    Path("flow.py").write_text(MODULE.format(configured=configured))
    begin = ("run", "flow.py:flow", "--id", "c", "--input", '{"text": "Xk9canary7"}')
    child(*begin, DIE="1")
    assert SECRET.encode() not in stored(LOGS)

    refused = child("show", "c")
    done = child("resume", "c")

    assert "encrypted with key own: this key is not configured" in refused.out
    assert (done.code, done.out.strip()) == (0, json.dumps(f"{SECRET.upper()}!")), done.err


def test_a_resume_without_the_key_is_an_error_of_the_log() -> None:
    Path("flow.py").write_text(MODULE.format(configured=""))
    keys = {"TAPPS_OTEL_ENCRYPTION_KEYS": f"env:{new_key()}"}
    child("run", "flow.py:flow", "--id", "c", "--input", '{"text": "x"}', DIE="1", **keys)

    refused = child("resume", "c")

    assert refused.code == 6
    assert "'env'" in refused.err
    assert "Traceback" not in refused.err
    assert child("resume", "c", **keys).code == 0


def test_doctor_tries_the_key(cli: Cli) -> None:
    assert "stored as they are" in cli("doctor").out
    configure(encryption_keys={"mine": new_key()})
    assert "with key mine" in cli("doctor").out
    broken = Reversing()
    broken.failing = True
    configure(codec=broken)
    done = cli("doctor")
    assert (done.code, "no key service" in done.out) == (1, True)
