"""A program as its users write it: no type checker may find a fault in it.

It is checked, and imported, but not run: what it does is tested elsewhere.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, assert_type

import tapps_otel
from tapps_otel import (
    AesGcmCodec,
    Attempt,
    AttemptHistory,
    Backoff,
    Change,
    Codec,
    EventStream,
    ExecutionHistory,
    ExecutorSpec,
    ForkOrigin,
    JsonlSpanExporter,
    Question,
    Run,
    RunDiff,
    RunHistory,
    RunSummary,
    SendReport,
    Settings,
    Step,
    StepDiff,
    StepHistory,
    StepSide,
    Timeline,
    TimelineStep,
    VerifyReport,
    Workflow,
    WorkflowEvent,
    annotate,
    answer,
    apause,
    bind,
    cancel,
    child_env,
    configure,
    current_run,
    current_step,
    diff,
    errors,
    events,
    follow,
    fork,
    history,
    instrument,
    last_run,
    list_runs,
    pause,
    register_codec,
    send,
    skip,
    step,
    timeline,
    uninstrument,
    verify,
    workflow,
)
from tapps_otel.testing import Runs, assert_resumes, crash_at

# ---------------------------------------------------------------- decorated functions


@dataclass
class Page:
    url: str
    text: str


def key_of_draft(page: Page, tone: str = "warm") -> str:
    return f"{page.url}/{tone}"


@step
def fetch(url: str, *, times: int = 1) -> Page:
    return Page(url, "text" * times)


@step(
    name="draft",
    agent="writer",
    action="write",
    retries=3,
    backoff=Backoff(1, 2, 60),
    retry_on=(OSError,),
    timeout=30,
    key=key_of_draft,
    ignore=(),
    persist=True,
    on_interrupted="fail",
    max_interruptions=5,
)
async def draft(page: Page, tone: str = "warm") -> str:
    return f"{tone}: {page.text}"


@workflow
async def article(url: str) -> str:
    page = fetch(url, times=2)
    assert_type(page, Page)
    one, other = await asyncio.gather(draft(page), draft(page, tone="dry"))
    assert_type(one, str)
    return max(one, other)


@workflow(name="count", on_divergence="rerun")
def count(urls: list[str]) -> int:
    return len([fetch.options(key=url)(url) for url in urls])


async def main() -> None:
    assert_type(await article("https://example.org"), str)
    assert_type(await article.options(workflow_id="nightly-42")("https://example.org"), str)
    assert_type(await article.resume("nightly-42"), str)
    assert_type(count(["a", "b"]), int)
    assert_type(count.options(workflow_id="c1", log_dir=Path("logs"))(["a"]), int)
    assert_type(count.resume("c1"), int)
    assert_type(await draft.options(retries=1, timeout=2.5)(Page("", "")), str)


# ---------------------------------------------------------------- methods


class Shop:
    @step
    def price(self, item: str) -> int:
        return len(item)

    @step(agent="clerk")
    async def deliver(self, item: str, *, fast: bool = False) -> str:
        return item

    @workflow
    def order(self, items: list[str]) -> int:
        return sum(self.price(item) for item in items)

    @workflow(name="order_all")
    async def order_all(self, items: list[str]) -> list[str]:
        return [await self.deliver(item, fast=True) for item in items]


async def use_shop(shop: Shop) -> None:
    assert_type(shop.price("tea"), int)
    assert_type(Shop.price(shop, "tea"), int)
    assert_type(await shop.deliver("tea"), str)
    assert_type(shop.order(["tea"]), int)
    assert_type(await shop.order_all(["tea"]), list[str])


# ---------------------------------------------------------------- inside steps


@step
def careful(pages: list[Page]) -> int:
    if not pages:
        skip("nothing to do", result=0)
    attempt = current_step()
    assert_type(attempt, Attempt)
    assert_type(attempt.idempotency_key, str)
    attempt.artifact("report.html", media_type="text/html")
    assert_type(current_run(), Run)
    annotate("seen", pages=len(pages))
    assert_type(child_env(), dict[str, str])
    with ThreadPoolExecutor() as pool:
        lengths = pool.map(bind(len), [page.text for page in pages])
    with bind(ProcessPoolExecutor(2), at_once=2) as workers:
        assert_type(workers.submit(fetch, "a").result(), Page)
    return sum(lengths)


# ---------------------------------------------------------------- tests


def check_article(runs: Runs) -> None:
    with crash_at("step_finish", 2):
        asyncio.run(article("https://example.org"))
    assert_type(assert_resumes(article, "https://example.org"), str)
    assert_type(assert_resumes(count, ["a"]), int)
    assert_type(runs["a"], RunHistory)
    assert_type(runs.events("a"), list[WorkflowEvent])
    runs.clock.set("2026-01-01")
    runs.seed(1)


# ---------------------------------------------------------------- runs by hand


def compile_all(folder: str) -> int:
    return len(folder)


def build() -> None:
    with Run.open("build", workflow_id="b1", inputs={"folder": "src"}) as run:
        assert_type(run, Run)
        assert_type(run.workflow_id, str)
        assert_type(run.call("compile", compile_all, "src", agent="cc"), int)
        with run.begin("package", inputs={"count": 3}) as attempt:
            assert_type(attempt, Attempt)
            if not attempt.done:
                attempt.finish(3, artifacts=["package.txt", Path("notes.txt")])


async def build_async() -> None:
    async with Run.open("build", workflow_id="b2") as run:
        assert_type(await run.acall("draft", draft, Page("", ""), "dry"), str)


# ---------------------------------------------------------------- looking at runs


def look(run_id: str) -> str:
    found: RunHistory = history(run_id)
    assert_type(cancel(run_id, by="Ann", reason="late", signal=True), list[str])
    assert_type(fork(run_id, from_step="draft", inputs={"url": "b"}, new_workflow_id="c"), str)
    assert_type(found.forked_from, ForkOrigin | None)
    steps: list[StepHistory] = found.steps
    attempts: list[AttemptHistory] = steps[0].attempts
    executions: list[ExecutionHistory] = found.executions
    summaries: list[RunSummary] = list(list_runs(status="failed", workflow="article", last=3))
    newest: RunHistory | None = last_run("article")
    by_time: Timeline = timeline(run_id)
    kept: list[TimelineStep] = by_time.not_run_again
    assert_type(kept[0].attempts[0].critical, list[tuple[int, int]])
    for event in events(run_id):
        assert_type(event, WorkflowEvent)
    for event in follow(run_id):
        assert_type(event, WorkflowEvent)
    found_diff: RunDiff = diff("first", run_id)
    first: StepDiff | None = found_diff.first
    assert_type(found_diff.inputs, tuple[Change, ...])
    if first is not None and first.a is not None:
        assert_type(first.a, StepSide)
    report: VerifyReport = verify(run_id)
    report.raise_if_bad()
    sent: SendReport = send(run_id, endpoint="http://localhost:4317", protocol="grpc")
    if not sent.ok or newest is None:
        raise errors.RunNotFoundError(run_id, Path())
    return f"{found.status} {attempts} {executions} {summaries} {tapps_otel.__version__}"


async def listen(run_id: str) -> None:
    stream: EventStream = follow(run_id)
    async for event in stream:
        assert_type(event, WorkflowEvent)
    await stream.aclose()


def set_up() -> Settings:
    return configure(
        enabled=True,
        log_dir=Path("logs"),
        durability="always",
        on_log_failure="stop",
        otlp_endpoint="http://localhost:4318",
        otlp_protocol="http/protobuf",
        aliases=("cicd/1.44",),
        announce="off",
    )


class Rot:
    """A codec of the user: it needs no class of this package."""

    key_id = "rot"

    def encode(self, data: bytes, context: bytes) -> bytes:
        return data[::-1]

    def decode(self, data: bytes, context: bytes, key_id: str) -> bytes:
        return data[::-1]


def set_up_encryption(keys: dict[str, bytes], codec: Codec) -> list[Settings]:
    return [
        configure(codec=Rot()),
        configure(codec=AesGcmCodec(keys)),
        configure(codec=codec, encryption_keys=None),
        configure(encryption_keys={"2026-11": "base64", "2026-05": b"bytes"}),
    ]


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents


def read_money(data: int) -> Money:
    return Money(data)


register_codec(Money, lambda money: money.cents, read_money, name="money")

# ---------------------------------------------------------------- pauses


@workflow
def release(page: Page) -> str:
    allowed = pause("Publish?", type=bool)
    assert_type(allowed, bool)
    late = pause("Publish?", type=bool, until=timedelta(hours=1))
    assert_type(late, bool | None)
    assert_type(pause(until=60), None)
    tags: list[str] = pause("Which tags?", type=list[str], name="tags")
    anything: Any = pause("What?")
    return f"{page.text} {tags} {anything}"


@workflow
async def arelease() -> list[Page]:
    pages = await asyncio.gather(apause("Left?", type=Page), apause("Right?", type=Page))
    assert_type(await apause("Publish?", type=bool, until=60), bool | None)
    return list(pages)


def give(run_id: str) -> list[Question]:
    try:
        release.resume(run_id)
    except errors.RunPausedError as error:
        step_id: str = answer(run_id, True, step=error.questions[0].step_id, by="ann", reason="ok")
        return [one for one in error.questions if one.step_id != step_id]
    return []


# ---------------------------------------------------------------- executors


class Pool:
    def run(self, name: str) -> list[int]:
        return [self.work(name)]

    def work(self, task: str) -> int:
        return len(task)


def watch() -> JsonlSpanExporter:
    spec = ExecutorSpec(
        executor="pool",
        run="run",
        step="work",
        run_id=lambda call: call.arguments["name"],
        step_id=lambda call: call.arguments["task"],
    )
    report = instrument(Pool, spec)
    if not report.ok:
        uninstrument(Pool)
    return JsonlSpanExporter()


# ---------------------------------------------------------------- what people annotate with


def retry_all(flows: list[Workflow[[str], Any]], one: Step[[str], Page]) -> list[Any]:
    return [flow(one(name).text) for flow, name in zip(flows, ["a", "b"], strict=True)]
