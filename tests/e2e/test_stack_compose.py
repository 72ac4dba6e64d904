"""``docker-compose.yml`` as it stands, in containers: Podman, and images of the built programs."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from capabilities import need
from commands import child
from containers import Project, make_project, podman
from otlp_collector import PATIENCE
from stack import COLLECTOR, wait_for, written_records

pytestmark = [
    pytest.mark.stack,
    pytest.mark.slow,
    pytest.mark.timeout(600),  # the images are made, too
]

ASKED = ("jaeger", "prometheus", "collector-health")  # for their health
SERVICES = ("collector", *ASKED)
FLOW = """
from tapps_otel import step, workflow

@step
def double(n: int) -> int:
    return 2 * n

@workflow
def report() -> list[int]:
    return [double(n) for n in range(3)]
"""


@pytest.fixture
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The whole file, started as ``collector/README.md`` says for Podman."""
    need("stack")
    need("prometheus")
    need("containers")
    logs = tmp_path_factory.mktemp("logs")
    with podman() as engine:
        made = make_project(engine, tmp_path_factory.mktemp("project"), logs)
        for arguments in podman_commands():
            made(*arguments)
        made.wait_until_healthy(*ASKED)
        yield made
        made("down", "--volumes", "--timeout=2")
        assert engine("ps", "--all", "--quiet").stdout == ""
        assert engine("volume", "ls", "--quiet").stdout == ""


def podman_commands() -> list[list[str]]:
    """The commands of podman-compose that ``collector/README.md`` names, in order."""
    text = (COLLECTOR / "README.md").read_text("utf-8")
    return [line.split() for line in re.findall(r"^podman-compose ([^#\n]+)", text, re.MULTILINE)]


def variables(project: Project) -> dict[str, str]:
    """What a program has set that sends its spans to the project."""
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": project.url("OTLP_GRPC"),
        "TAPPS_OTEL_LOG_DIR": str(project.logs),
    }


def wait_until_equal(project: Project, run: str) -> None:
    """Wait until Jaeger has the spans that the run's log tells of, and no other."""
    command = ("verify", run, "--against", project.url("JAEGER"))
    wait_for(
        lambda: child(*command, **variables(project)).code == 0,
        f"{run} is equal in Jaeger",
        2 * PATIENCE,
    )


def calls(project: Project, workflow: str) -> int:
    """The highest count of a workflow's spans that Prometheus has stored."""
    metric = f'traces_span_metrics_calls_total{{tapps_workflow_name="{workflow}"}}'
    answer = requests.get(
        f"{project.url('PROMETHEUS')}/api/v1/query",
        params={"query": f"sum(max_over_time({metric}[1h]))"},
        timeout=10,
    )
    return sum(int(one["value"][1]) for one in answer.json()["data"]["result"])


def lines(project: Project) -> set[str]:
    """The lines of all logs."""
    return {line for path in project.logs.glob("*.jsonl") for line in path.read_text().splitlines()}


def collected(project: Project) -> set[str]:
    """The lines of logs that the collector has written."""
    folder = project.volume("collector-data") / "logs"
    return {record.body for record in written_records(folder)}


def demo(project: Project) -> str:
    """Run the demo, and return the id of its run."""
    done = child("demo", **variables(project))
    assert done.code == 0, done.err
    return str(re.findall(r"open (survey-\S+)", done.out)[-1])


def kill_and_wait(project: Project, service: str, run: str) -> None:
    """Kill a container, run a workflow meanwhile, and wait until the container is back."""
    killed = project.kill(service)
    done = child("run", "flow.py:report", "--id", run, "--quiet", **variables(project))
    assert (done.code, done.out) == (0, "[0,2,4]\n")
    wait_for(lambda: project.process(service) not in {0, killed}, f"{service} is back")
    project.wait_until_healthy(*ASKED)


def test_each_container_that_is_killed_comes_back_and_nothing_is_lost(project: Project) -> None:
    Path("flow.py").write_text(FLOW, "utf-8")
    first = demo(project)
    wait_until_equal(project, first)
    counted = wait_for(lambda: calls(project, "survey"), "the demo's span metrics", 2 * PATIENCE)
    others = {service: f"{service}-{uuid.uuid4().hex[:8]}" for service in SERVICES}
    for service, run in others.items():
        kill_and_wait(project, service, run)
    sent = child("send", "--all", **variables(project))

    assert sent.code == 0, sent.err
    for run in (first, *others.values()):
        wait_until_equal(project, run)
    wait_for(lambda: collected(project) >= lines(project), "every line of the logs")
    assert calls(project, "survey") >= counted
