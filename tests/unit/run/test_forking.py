"""Forks: a new run that begins with what another one had finished before a step."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from commands import Cli
from crashes import Effects, die_at, go, killed
from logs import forge
from tapps_otel import (
    Backoff,
    Run,
    answer,
    apause,
    bind,
    configure,
    current_step,
    diff,
    fork,
    history,
    last_run,
    list_runs,
    pack,
    pause,
    skip,
    step,
    timeline,
    unpack,
    verify,
    workflow,
)
from tapps_otel.encryption import AesGcmCodec
from tapps_otel.errors import (
    BlobDamagedError,
    DecryptionError,
    DivergenceError,
    EncryptionKeyError,
    InvalidIdError,
    LogDamagedError,
    LogWriteError,
    RunBusyError,
    RunConflictError,
    RunNotFoundError,
    RunPausedError,
    WorkflowInputError,
)
from tapps_otel.log.store import Store
from tapps_otel.otel.replay.run_spans import RunSpans

Log = Callable[..., list[dict[str, Any]]]
did = Effects(Path("effects"))  # in the folder of each test


@step
def reserve(item: str) -> str:
    did(f"reserve {item}")
    return f"{item} reserved"


@step
def pay(amount: int) -> str:
    did(f"pay {amount}")
    die_at("pay")
    if amount > 50:
        raise ValueError("too much")
    return f"{amount} paid"


@step
def send(item: str) -> str:
    did(f"send {item}")
    return f"{item} sent"


@workflow
def order(item: str, amount: int) -> list[str]:
    return [reserve(item), pay(amount), send(item)]


def first() -> None:
    go(order, "lamp", 40)
    did.forget()


def test_what_had_finished_before_the_step_does_not_run_again() -> None:
    first()

    assert fork("r", from_step="pay", new_workflow_id="f") == "f"

    assert history("f").status == "interrupted"
    assert did.all == []  # a fork runs nothing
    assert order.resume("f") == ["lamp reserved", "40 paid", "lamp sent"]
    assert did.all == ["pay 40", "send lamp"]
    assert verify("f").ok
    assert history("r").status == "completed"


def test_arguments_can_be_changed() -> None:
    with pytest.raises(ValueError, match="too much"):
        go(order, "lamp", 99)
    did.forget()

    fork("r", from_step="pay", inputs={"amount": 5}, new_workflow_id="f")

    assert order.resume("f") == ["lamp reserved", "5 paid", "lamp sent"]
    assert did.all == ["pay 5", "send lamp"]
    assert history("f").inputs == b'{"item":"lamp","amount":5}'


def test_an_argument_that_a_finished_step_had_is_the_guards_business() -> None:
    first()
    fork("r", from_step="pay", inputs={"item": "desk"}, new_workflow_id="f")

    with pytest.raises(DivergenceError):
        order.resume("f")
    assert did.all == []


@pytest.mark.parametrize("inputs", [{"amount": "many"}, {"colour": "red"}])
def test_a_resume_checks_the_arguments(inputs: dict[str, Any]) -> None:
    first()
    fork("r", from_step="pay", inputs=inputs, new_workflow_id="f")

    with pytest.raises(WorkflowInputError):
        order.resume("f")
    assert did.all == []


def test_an_argument_that_is_no_json_makes_no_run() -> None:
    first()
    with pytest.raises(WorkflowInputError, match=r"\$\.amount"):
        fork("r", from_step="pay", inputs={"amount": {1, 2}}, new_workflow_id="f")

    assert [run.workflow_id for run in list_runs()] == ["r"]


def test_each_copied_event_says_where_it_came_from(log: Log) -> None:
    first()
    fork("r", from_step="send", new_workflow_id="f")

    source = {one["seq"]: one for one in log(workflow_id="r")}
    copied = [one for one in log(workflow_id="f") if "origin" in one]
    assert [one["step_id"] for one in copied] == ["reserve", "reserve", "pay", "pay"]
    for one in copied:
        origin = source[one["origin"]["seq"]]
        assert one["origin"] == {"workflow_id": "r", "seq": origin["seq"], "sha": origin["sha"]}
        same = ("event_type", "timestamp", "step_id", "attempt", "result", "inputs_digest")
        assert {name: one.get(name) for name in same} == {name: origin.get(name) for name in same}


def test_a_chain_of_forks_is_shown(cli: Cli) -> None:
    first()
    fork("r", from_step="pay", new_workflow_id="f")
    order.resume("f")
    fork("f", from_step="send", new_workflow_id="g")

    origin = history("g").forked_from
    assert origin is not None
    assert (origin.workflow_id, origin.step_id, origin.ancestors) == ("f", "send", ("r",))
    assert "from run f, before step send, which is a fork of r" in cli("show", "g").out
    assert "order (fork of f < r)" in cli("list").out
    found = {
        one["workflow_id"]: one["forked_from"] for one in json.loads(cli("list", "--json").out)
    }
    assert found == {"r": [], "f": ["r"], "g": ["f", "r"]}
    assert {run.workflow_id for run in list_runs(text="r")} == {"r", "f", "g"}
    order.resume("g")
    assert "from run f" in cli("show", "g").out  # also after a resume


def test_reports_and_diff_take_a_fork(cli: Cli) -> None:
    with pytest.raises(ValueError, match="too much"):
        go(order, "lamp", 99)
    fork("r", from_step="pay", inputs={"amount": 5}, new_workflow_id="f")
    order.resume("f")

    assert not diff("r", "f").equal
    assert [one.step_id for one in timeline("f").not_run_again] == ["reserve"]
    for command in (("timeline", "f"), ("timeline", "f", "--markdown"), ("show", "f", "pay")):
        assert cli(*command).code == 0
    assert cli("timeline", "f", "--html", "f.html").code == 0
    assert cli("diff", "r", "f").code == 1


def test_large_values_are_copied(log_dir: Path) -> None:
    @step
    def large() -> str:
        did("large")
        return "x" * 70_000

    @step
    def count(text: str) -> int:
        return len(text)

    @workflow
    def flow(text: str) -> int:
        return count(large() + text)

    go(flow, "y" * 70_000)
    did.forget()
    fork("r", from_step="count", new_workflow_id="f")
    for path in (log_dir / "r.blobs").iterdir():
        path.unlink()
    (log_dir / "r.jsonl").unlink()

    assert flow.resume("f") == 140_000
    assert did.all == []


def test_a_damaged_large_value_makes_no_run(log_dir: Path) -> None:
    @step
    def large() -> str:
        return "x" * 70_000

    @workflow
    def flow() -> str:
        return reserve(large()[:1])

    go(flow)
    next((log_dir / "r.blobs").iterdir()).write_bytes(b"changed")
    with pytest.raises(BlobDamagedError):
        fork("r", from_step="reserve", new_workflow_id="f")

    assert not (log_dir / "f.jsonl").exists()


# ---------------------------------------------------------------- which step


def test_a_failed_step_can_be_forked_from_with_other_code() -> None:
    with pytest.raises(ValueError, match="too much"):
        go(order, "lamp", 99)
    fork("r", from_step="pay", new_workflow_id="f")

    with pytest.raises(ValueError, match="too much"):
        order.resume("f")
    assert did.all == ["reserve lamp", "pay 99", "pay 99"]


def test_an_interrupted_step_can_be_forked_from() -> None:
    killed(lambda: go(order, "lamp", 40), at="pay")
    fork("r", from_step="pay", new_workflow_id="f")

    assert order.resume("f") == ["lamp reserved", "40 paid", "lamp sent"]
    assert did.count("reserve lamp") == 1


def test_of_a_nested_step_what_had_finished_around_it_counts() -> None:
    @step
    def outer() -> list[str]:
        return [reserve("a"), pay(1), send("b")]

    @workflow
    def flow() -> list[str]:
        return [reserve("before"), *outer(), send("after")]

    go(flow)
    did.forget()
    fork("r", from_step="outer/pay", new_workflow_id="f")

    assert history("f").by_id["outer"].status == "cancelled"
    assert flow.resume("f") == [
        "before reserved", "a reserved", "1 paid", "b sent", "after sent",
    ]  # fmt: skip
    assert did.all == ["pay 1", "send b", "send after"]


@pytest.mark.parametrize("on_interrupted", ["rerun", "fail"])
def test_the_steps_around_a_nested_one_run_again_without_being_asked_for(
    on_interrupted: Any,
) -> None:
    @step(on_interrupted=on_interrupted)
    def outer() -> str:
        return pay(1)

    @workflow
    def flow() -> str:
        return outer()

    go(flow)
    fork("r", from_step="outer/pay", new_workflow_id="f")

    assert flow.resume("f") == "1 paid"


def test_a_step_that_overlaps_runs_again_and_keeps_what_had_finished_inside() -> None:
    @step
    async def inner(name: str) -> str:
        did(f"inner {name}")
        return name

    @step
    async def slow(began: asyncio.Event, other: asyncio.Event) -> str:
        found = await inner("early")
        began.set()
        await other.wait()
        return found + await inner("late")

    slow = step(ignore=("began", "other"))(slow._fn)

    @step
    async def quick() -> str:
        did("quick")
        return "quick"

    @workflow
    async def flow() -> list[str]:
        began, other = asyncio.Event(), asyncio.Event()

        async def second() -> str:
            await began.wait()
            found = await quick()
            other.set()
            return found

        return list(await asyncio.gather(slow(began, other), second()))

    go(flow)
    did.forget()
    fork("r", from_step="quick", new_workflow_id="f")

    assert go(flow, workflow_id="f") == ["earlylate", "quick"]
    assert sorted(did.all) == ["inner late", "quick"]


def test_of_a_step_that_waited_beside_it_what_had_finished_inside_is_taken_over() -> None:
    @step
    async def review(text: str) -> str:
        return await apause(f"Is {reserve(text)} good?", type=str, name="review")

    @workflow
    async def flow() -> list[str]:
        async def begin() -> str:
            return send(await apause("What first?", type=str, name="begin"))

        return list(await asyncio.gather(begin(), review("lamp")))

    with pytest.raises(RunPausedError):
        go(flow)
    answer("r", "desk", step="begin")
    with pytest.raises(RunPausedError):  # `send` begins before `review` is called once more
        go(flow)
    fork("r", from_step="send", new_workflow_id="f")

    with pytest.raises(RunPausedError):
        go(flow, workflow_id="f")
    answer("f", "yes")
    assert go(flow, workflow_id="f") == ["desk sent", "yes"]
    assert did.count("reserve lamp") == 1


def test_of_a_step_that_was_to_be_retried_what_had_finished_inside_is_taken_over() -> None:
    failed = asyncio.Event()

    @step
    def confirm() -> str:
        if did("confirm") == 1:
            failed.set()
            raise ValueError("not yet")
        return "confirmed"

    @step(retries=1, backoff=Backoff(0.01, 1, 0.01))
    async def book() -> str:
        return reserve("lamp") + confirm()

    @workflow
    async def flow() -> list[str]:
        async def follow() -> str:
            await failed.wait()
            return send("news")

        return list(await asyncio.gather(book(), follow()))

    wanted = go(flow)
    fork("r", from_step="send", new_workflow_id="f")

    assert go(flow, workflow_id="f") == wanted
    assert did.count("reserve lamp") == 1
    [first, _] = history("f").by_id["book"].attempts
    assert first.status == "cancelled"
    assert verify("f").ok


def test_steps_of_a_thread_pool_that_had_finished_are_taken_over() -> None:
    @workflow
    def flow() -> list[str]:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(bind(reserve), [str(number) for number in range(20)]))
        return [*found, send("all")]

    go(flow)
    did.forget()
    fork("r", from_step="send", new_workflow_id="f")

    assert len(go(flow, workflow_id="f")) == 21
    assert did.all == ["send all"]


def test_all_attempts_of_a_retried_step_are_taken_over() -> None:
    @step(retries=2, backoff=Backoff(0, 1, 0))
    def flaky() -> int:
        if did("flaky") < 3:
            raise ConnectionError("reset")
        return current_step().number

    @workflow
    def flow() -> str:
        flaky()
        return send("x")

    go(flow)
    fork("r", from_step="send", new_workflow_id="f")

    found = history("f").by_id["flaky"]
    assert [one.status for one in found.attempts] == ["failed", "failed", "completed"]
    assert go(flow, workflow_id="f") == "x sent"
    assert did.count("flaky") == 3


@pytest.mark.parametrize("from_step", ["send", "reserve"])
def test_a_handled_failure_stays_handled(from_step: str) -> None:
    """Also if the step of the fork is the only one that shows that it was."""

    @workflow
    def flow() -> str:
        try:
            pay(99)
        except ValueError:
            return send("refund") + reserve("later")
        return "paid"

    go(flow)
    did.forget()
    fork("r", from_step=from_step, new_workflow_id="f")

    assert go(flow, workflow_id="f") == "refund sentlater reserved"
    assert "pay 99" not in did.all


def test_a_skipped_step_stays_skipped() -> None:
    @step
    def maybe() -> str:
        did("maybe")
        skip("not today", "none")

    @workflow
    def flow() -> str:
        return maybe() + send("x")

    go(flow)
    did.forget()
    fork("r", from_step="send", new_workflow_id="f")

    assert go(flow, workflow_id="f") == "nonex sent"
    assert did.all == ["send x"]


def test_equal_calls_and_keys_are_found_again() -> None:
    @workflow
    def flow() -> list[str]:
        keyed = reserve.options(key="k")("a")
        return [reserve("a"), reserve("a"), keyed, send("x"), reserve("a")]

    go(flow)
    did.forget()
    fork("r", from_step="send", new_workflow_id="f")

    go(flow, workflow_id="f")
    assert did.all == ["send x", "reserve a"]
    assert set(history("f").by_id) == set(history("r").by_id)


def test_from_the_first_step_everything_runs() -> None:
    first()
    fork("r", from_step="reserve", new_workflow_id="f")

    order.resume("f")
    assert did.all == ["reserve lamp", "pay 40", "send lamp"]


def test_a_name_that_one_step_has_will_do() -> None:
    @step
    def outer() -> str:
        return pay(1)

    @workflow
    def flow() -> str:
        return outer()

    go(flow)

    assert fork("r", from_step="pay", new_workflow_id="f") == "f"
    origin = history("f").forked_from
    assert origin is not None
    assert origin.step_id == "outer/pay"


def test_a_child_run_is_not_copied_and_its_result_is() -> None:
    @workflow
    def flow() -> str:
        order.options(workflow_id="child")("lamp", 1)
        return send("x")

    go(flow)
    did.forget()
    fork("r", from_step="send", new_workflow_id="f")

    assert go(flow, workflow_id="f") == "x sent"
    assert did.all == ["send x"]
    child = history("f").by_id["order"].child
    assert child is not None
    assert child.workflow_id == "child"


def test_a_fork_of_a_child_run_is_a_run_by_itself() -> None:
    @workflow
    def flow() -> list[str]:
        return order.options(workflow_id="child")("lamp", 1)

    go(flow)
    fork("child", from_step="send", new_workflow_id="f")

    order.resume("f")
    assert history("f").parent is None
    assert history("f").trace_id != history("child").trace_id


def test_a_run_opened_by_hand_is_forked() -> None:
    def build(run_id: str) -> int:
        with Run.open("build", workflow_id=run_id, inputs={"of": "x"}) as run:
            run.call("compile", lambda: did("compile"))
            return int(run.call("link", lambda: did("link")))

    build("r")
    fork("r", from_step="link", new_workflow_id="f")
    build("f")

    assert did.all == ["compile", "link", "link"]


def test_artifacts_come_along_with_their_late_digests() -> None:
    @step
    def film() -> None:
        Path("film").write_bytes(bytes(2 << 20))
        current_step().artifact("film")

    @workflow
    def flow() -> str:
        film()
        return send("x")

    go(flow)
    fork("r", from_step="send", new_workflow_id="f")

    assert history("f").by_id["film"].last.artifacts == history("r").by_id["film"].last.artifacts


def test_idempotency_keys_are_those_of_the_new_run(log: Log) -> None:
    @step
    def charge() -> str:
        return current_step().idempotency_key

    @workflow
    def flow() -> str:
        reserve("x")
        return charge()

    before = go(flow)
    fork("r", from_step="charge", new_workflow_id="f")

    assert go(flow, workflow_id="f") != before


def test_a_fork_can_be_moved() -> None:
    first()
    fork("r", from_step="pay", new_workflow_id="f")
    pack("f", Path("f.zip"))
    unpack(Path("f.zip"), log_dir="elsewhere")

    assert order.options(log_dir="elsewhere").resume("f") == [
        "lamp reserved",
        "40 paid",
        "lamp sent",
    ]


def test_a_run_in_progress_is_forked_from_what_it_had_finished() -> None:
    @workflow
    def flow() -> str:
        reserve("a")
        fork("r", from_step="pay", new_workflow_id="f") if len(history("r").steps) > 1 else None
        pay(1)
        fork("r", from_step="pay", new_workflow_id="f")
        return "done"

    go(flow)

    assert [one.step_id for one in history("f").steps] == ["reserve"]


def test_a_pause_is_forked_from_and_asks_again() -> None:
    @workflow
    def flow() -> str:
        reserve("a")
        return "yes" if pause("Publish?", type=bool) else "no"

    with pytest.raises(RunPausedError):
        go(flow)
    answer("r", value=False)
    assert go(flow) == "no"
    fork("r", from_step="pause", new_workflow_id="f")

    with pytest.raises(RunPausedError):
        go(flow, workflow_id="f")
    answer("f", value=True)
    assert go(flow, workflow_id="f") == "yes"
    assert did.all == ["reserve a"]


def test_an_answer_is_taken_over() -> None:
    @workflow
    def flow() -> str:
        return pause("Which item?", type=str) + send("x")

    with pytest.raises(RunPausedError):
        go(flow)
    answer("r", "lamp", by="Ann")
    go(flow)
    did.forget()
    fork("r", from_step="send", new_workflow_id="f")

    assert go(flow, workflow_id="f") == "lampx sent"
    assert history("f").by_id["pause"].answered == history("r").by_id["pause"].answered


def test_its_trace_has_a_link_to_the_run_and_no_span_of_what_was_taken_over(log_dir: Path) -> None:
    first()
    fork("r", from_step="send", new_workflow_id="f")
    order.resume("f")

    spans = [found.span for found in RunSpans(Store(log_dir), "f")]
    assert [span.name for span in spans] == ["workflow order", "step send", "workflow order"]
    [link] = spans[0].links
    assert f"{link.context.trace_id:032x}" == history("r").trace_id
    assert {f"{span.context.trace_id:032x}" for span in spans} == {history("f").trace_id}
    assert dict(link.attributes or {}) == {"tapps.link": "forked_from"}


# ---------------------------------------------------------------- what is refused


def test_an_unknown_step_is_refused_with_the_steps_there_are() -> None:
    first()
    with pytest.raises(RunConflictError, match=r"no step 'pray'.*'reserve', 'pay', 'send'"):
        fork("r", from_step="pray")

    assert [run.workflow_id for run in list_runs()] == ["r"]


def test_a_log_without_a_start_has_no_step_to_fork_from(tmp_path: Path) -> None:
    begun = {"event_type": "step_start", "step_id": "a", "step": "a"}
    forge(tmp_path / "forged", "r", [begun])

    with pytest.raises(RunConflictError):
        fork("r", from_step="a", log_dir=tmp_path / "forged")


def test_a_name_that_several_steps_have_is_refused() -> None:
    @step
    def outer() -> str:
        return pay(1)

    @workflow
    def flow() -> str:
        return outer() + outer.options(key="k")()

    go(flow)
    with pytest.raises(RunConflictError, match=r"several steps named 'pay'.*'outer/pay'"):
        fork("r", from_step="pay")


def test_an_unknown_run_and_a_taken_id_are_refused(log_dir: Path) -> None:
    first()
    with pytest.raises(RunNotFoundError):
        fork("nothing", from_step="pay")
    before = (log_dir / "r.jsonl").read_bytes()
    with pytest.raises(RunConflictError, match="choose another id"):
        fork("r", from_step="pay", new_workflow_id="r")
    fork("r", from_step="pay", new_workflow_id="f")
    with pytest.raises(RunConflictError, match="choose another id"):
        fork("r", from_step="pay", new_workflow_id="f")
    (log_dir / "g.ledger").touch()
    with pytest.raises(RunConflictError, match=r"g\.ledger exists"):
        fork("r", from_step="pay", new_workflow_id="g")
    for name in ("../x", "traces", "pruned"):
        with pytest.raises((InvalidIdError, RunConflictError)):
            fork("r", from_step="pay", new_workflow_id=name)
    assert (log_dir / "r.jsonl").read_bytes() == before


def test_the_id_of_a_run_in_progress_is_refused() -> None:
    first()

    @workflow
    def flow() -> None:
        with pytest.raises(RunBusyError):
            fork("r", from_step="pay", new_workflow_id="busy")

    go(flow, workflow_id="busy")


def test_damage_before_the_step_is_refused_and_damage_after_it_is_not(log_dir: Path) -> None:
    first()
    path = log_dir / "r.jsonl"
    lines = path.read_bytes().split(b"\n")
    damaged = [line.replace(b'"seq":6', b'"seq":66') for line in lines]  # send
    path.write_bytes(b"\n".join(damaged))

    with pytest.raises(LogDamagedError):
        fork("r", from_step="send", new_workflow_id="f")
    assert not (log_dir / "f.jsonl").exists()
    fork("r", from_step="pay", new_workflow_id="f")
    assert order.resume("f") == ["lamp reserved", "40 paid", "lamp sent"]
    path.write_bytes(b"\n".join(lines))  # every log that a test leaves is checked


# ---------------------------------------------------------------- the command


def test_the_command_forks_and_tells_what_is_next(cli: Cli) -> None:
    Path("flow.py").write_text(
        "from tapps_otel import step, workflow\n\n\n"
        "@step\ndef double(n: int) -> int:\n    return 2 * n\n\n\n"
        "@step\ndef add(a: int, b: int) -> int:\n    return a + b\n\n\n"
        "@workflow\ndef flow(a: int, b: int) -> int:\n    return add(double(a), b)\n"
    )
    assert cli("run", "flow.py:flow", "-i", "[1, 2]", "--id", "r", "-q").out == "4\n"
    done = cli("fork", "r", "--from", "add", "--input", '{"b": 40}', "--id", "f")

    assert (done.code, done.err) == (0, "")
    assert "takes over 1 finished step of run r" in done.out
    assert "resume f" in done.out
    assert cli("resume", "f", "-q").out == "42\n"
    made = json.loads(cli("fork", "f", "--from", "double", "--json").out)["workflow_id"]
    assert made.startswith("flow-")
    found = last_run()
    assert found is not None
    assert found.workflow_id == made


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("fork", "r", "--from", "pray"), 5, "no step 'pray'"),
        (("fork", "nothing", "--from", "pay"), 3, "no run 'nothing'"),
        (("fork", "r", "--from", "pay", "--id", "r"), 5, "choose another id"),
        (("fork", "r", "--from", "pay", "--id", "a/b"), 2, "cannot be a run id"),
        (("fork", "r", "--from", "pay", "--input", "[1]"), 2, "must be an object"),
        (("fork", "r", "--from", "pay", "--input", "{"), 2, "not JSON"),
        (("fork", "r"), 2, "--from"),
    ],
)
def test_wrong_arguments_are_told(
    arguments: tuple[str, ...], code: int, said: str, cli: Cli
) -> None:
    first()
    done = cli(*arguments)

    assert done.code == code
    assert said in done.err
    assert [run.workflow_id for run in list_runs()] == ["r"]


# ---------------------------------------------------------------- encrypted values


def test_encrypted_values_are_encrypted_for_the_new_run(log_dir: Path) -> None:
    @step
    def large(word: str) -> str:
        return word * 20_000

    @workflow
    def flow(word: str) -> str:
        return reserve(large(word)[:6]) + send("x")

    configure(codec=AesGcmCodec({"a": bytes(32)}))
    go(flow, "secret")
    did.forget()
    fork("r", from_step="send", new_workflow_id="f")

    assert flow.resume("f") == "secret reservedx sent"
    assert did.all == ["send x"]
    files = [path for path in log_dir.rglob("*") if path.is_file()]
    assert not any(b"secret" in path.read_bytes() for path in files)
    configure(codec=None)
    with pytest.raises(EncryptionKeyError):
        fork("r", from_step="send", new_workflow_id="g")
    assert not (log_dir / "g.jsonl").exists()


class Failing:
    """A codec whose n-th decryption or encryption fails, once."""

    key_id = "k"

    def __init__(self) -> None:
        self.left = {"encode": 0, "decode": 0}

    def _count(self, what: str) -> None:
        self.left[what] -= 1
        if self.left[what] == 0:
            raise RuntimeError("the key service is down")

    def encode(self, data: bytes, context: bytes) -> bytes:
        self._count("encode")
        return data[::-1]

    def decode(self, data: bytes, context: bytes, key_id: str) -> bytes:
        self._count("decode")
        return data[::-1]


@pytest.mark.parametrize("what", ["encode", "decode"])
@pytest.mark.parametrize("number", range(1, 9))
def test_a_codec_that_fails_makes_no_fork_or_a_whole_one(
    what: str, number: int, log_dir: Path
) -> None:
    @step
    def large(word: str) -> str:
        did("large")
        return word * 20_000

    @workflow
    def flow(word: str) -> str:
        return large(word)[:6] + reserve("x") + send("x")

    codec = Failing()
    configure(codec=codec)
    go(flow, "secret")
    did.forget()
    codec.left[what] = number
    try:
        fork("r", from_step="send", new_workflow_id="f")
    except (DecryptionError, LogWriteError):
        assert not list(log_dir.glob("f.*"))
        return
    codec.left[what] = 0
    assert flow.resume("f") == "secretx reservedx sent"
    assert did.all == ["send x"]
