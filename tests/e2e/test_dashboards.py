"""The dashboard: each of its queries, asked of the stack's real Prometheus, returns data."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from capabilities import need
from stack import COLLECTOR, Stack, clean_environment, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.slow]
DASHBOARD = json.loads((COLLECTOR / "grafana" / "runs.json").read_text("utf-8"))
PANELS = [one for one in DASHBOARD["panels"] if one["type"] != "row"]
QUERIES = [
    (f"{panel['title']} {target['refId']}", target["expr"])
    for panel in PANELS
    for target in panel["targets"]
]
MAY_BE_ZERO = {"The collector's queues A"}

WORK = """
from opentelemetry import trace
from tapps_otel import Backoff, skip, step, workflow

CHAT = {
    "gen_ai.response.model": "large",
    "gen_ai.usage.input_tokens": 100,
    "gen_ai.usage.output_tokens": 10,
}

@step(retries=1, backoff=Backoff(0, 1, 0))
def write(n: int) -> int | None:
    trace.get_tracer("library").start_span("chat", attributes=CHAT).end()
    if n == 2:
        raise ValueError("no")
    if n == 3:
        skip("nothing to do")
    return n

@workflow
def report(n: int) -> int | None:
    return write(n)

for n in (1, 2, 3):
    try:
        report(n)
    except ValueError:
        pass
"""

# A limit of the size of files is a full disk to the log.
FULL_DISK = """
import resource, signal
from pathlib import Path
from tapps_otel import configure, step, workflow

configure(buffer_events=0, durability="os")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

@step
def write(n: int) -> int:
    return n

@workflow
def report() -> None:
    log = max(Path("full").glob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size, resource.RLIM_INFINITY))
    write(1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

report()
"""


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that programs have sent metrics and spans to: of work, and of what fails."""
    need("stack")
    need("prometheus")
    folder = tmp_path_factory.mktemp("stack")
    stack = Stack(folder, folder / "no-logs")
    try:
        stack.start()
        stack.start_prometheus()
        env = {**stack.env(), "OTEL_METRICS_EXPORTER": "otlp"}
        run(WORK, folder, **env, OTEL_TRACES_EXPORTER="otlp,tapps_jsonl")
        refusing = {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{stack.otlp('http')}/nowhere",
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
        }
        run(FULL_DISK, folder, **env, **refusing)
        yield stack
    finally:
        stack.end()


def run(source: str, folder: Path, **env: str) -> None:
    """Run a program to its end."""
    env = {**clean_environment(), **env, "TAPPS_OTEL_LOG_DIR": "full"}
    command = [sys.executable, "-c", source]
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def asked(stack: Stack, query: str) -> list[dict[str, Any]]:
    """What Prometheus returns, with Grafana's variables replaced."""
    for name, value in (("$workflow", ".*"), ("$__range", "1h"), ("$__rate_interval", "5m")):
        query = query.replace(name, value)
    answer = requests.get(
        f"http://{stack.addresses['PROMETHEUS']}/api/v1/query", params={"query": query}, timeout=10
    ).json()
    assert answer["status"] == "success", (query, answer)
    found: list[dict[str, Any]] = answer["data"]["result"]
    return [one for one in found if not math.isnan(float(one["value"][1]))]


@pytest.mark.parametrize(("name", "query"), QUERIES, ids=[name for name, _ in QUERIES])
def test_each_query_returns_data(worked: Stack, name: str, query: str) -> None:
    found = wait_for(lambda: asked(worked, query), f"data of {name}: {query}")

    if name not in MAY_BE_ZERO:
        assert any(float(one["value"][1]) > 0 for one in found), (query, found)


def test_numbers_are_those_of_programs_that_have_ended(worked: Stack) -> None:
    (by_status,) = [query for name, query in QUERIES if name == "Executions by status A"]
    (tokens,) = [query for name, query in QUERIES if name == "Tokens A"]

    def counted(query: str, label: str) -> dict[str, float]:
        return {one["metric"][label]: float(one["value"][1]) for one in asked(worked, query)}

    statuses = wait_for(
        lambda: len(counted(by_status, "tapps_status")) == 2 and counted(by_status, "tapps_status"),
        "both statuses",
    )
    assert statuses == {"completed": 3, "failed": 1}
    assert counted(tokens, "gen_ai_token_type") == {"input": 400, "output": 40}


def test_the_variable_offers_the_workflows(worked: Stack) -> None:
    (variable,) = DASHBOARD["templating"]["list"]
    metric, label = variable["query"]["query"].removeprefix("label_values(")[:-1].split(", ")
    url = f"http://{worked.addresses['PROMETHEUS']}/api/v1/label/{label}/values"

    def offered() -> list[str]:
        found: list[str] = requests.get(url, params={"match[]": metric}, timeout=10).json()["data"]
        return found

    assert wait_for(offered, "workflows") == ["report"]
