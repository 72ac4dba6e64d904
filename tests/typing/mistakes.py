"""Mistakes that users make. Each line marked `# error` must be one for every type checker.

No other line may be one. The file is checked, and never run.
"""

from __future__ import annotations

from tapps_otel import (
    Backoff,
    ExecutorSpec,
    Run,
    answer,
    configure,
    events,
    history,
    instrument,
    list_runs,
    pause,
    send,
    step,
    verify,
    workflow,
)
from tapps_otel import worklow  # error


@step
def fetch(url: str, *, times: int = 1) -> int:
    return len(url) * times


@step
async def draft(page: str) -> str:
    return page


@workflow
def article(url: str) -> int:
    return fetch(url)


class Shop:
    @step
    def price(self, item: str) -> int:
        return len(item)

    @workflow
    def order(self, items: list[str]) -> int:
        return sum(self.price(item) for item in items)


# Arguments and results of steps and workflows.
fetch(1)  # error
fetch("a", 2)  # error
fetch("a", time=2)  # error
fetch()  # error
wrong: str = fetch("a")  # error
article(7)  # error
article.options(workflow_id="a")(7)  # error
article.options(workflow_id=7)  # error
article.options(id="a")  # error
resumed: str = article.resume("a")  # error

# Pauses and answers.
pause()  # error
pause(1)  # error
pause("a", until="soon")  # error
pause("a", typ=bool)  # error
number: int = pause("a", type=str)  # error
answer("a")  # error
answer("a", True, reason=1)  # error
fetch.options(retries="3")  # error

# Methods: `self` is bound, and the other arguments are checked.
Shop().price()  # error
Shop().price(1)  # error
Shop().price("tea", "milk")  # error
Shop().order("tea")  # error
total: str = Shop().order(["tea"])  # error


async def forget() -> str:
    return draft("page")  # error


# Options with a fixed set of words.
@step(on_interrupted="skip")  # error
def one() -> None: ...


@step(retry=3)  # error
def two() -> None: ...


@workflow(on_divergence="ignore")  # error
def three() -> None: ...


configure(durability="never")  # error
configure(log_directory="logs")  # error
configure(buffer_events="many")  # error
list_runs(status="complete")  # error
send("r1", protocol="http")  # error
verify("r1").raise_if_wrong()  # error
history("r1").state  # error
Backoff("1")  # error
instrument("celery")  # error
instrument(Shop)  # error
ExecutorSpec(executor="shop", run="order")  # error

for event in events("r1"):
    event.sequence  # error

with Run.open("build", workflow_id=1) as run:  # error
    run.begin("package", input=3)  # error
