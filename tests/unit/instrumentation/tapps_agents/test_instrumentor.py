"""``opentelemetry-instrument python app.py``: spans and a log for a program that is not changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from commands import LAUNCHER, environment
from programs import PACKAGES
from tapps_agents_project import FIVE, Project
from tapps_otel import history, list_runs

APP = """
import asyncio, subprocess, sys
from pathlib import Path
from tapps_agents.agents.analyst.agent import AnalystAgent
from tapps_agents.workflow.executor import WorkflowExecutor

async def run(self, command, **_):
    return {}

async def activate(self, *_, **__): ...

AnalystAgent.run, AnalystAgent.activate = run, activate
executor = WorkflowExecutor(project_root=Path.cwd())
executor.load_workflow(Path(sys.argv[1]))
asyncio.run(executor.execute())
if len(sys.argv) > 2:
    subprocess.run([sys.executable, __file__, sys.argv[2]], check=True)
"""


def launch(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LAUNCHER, sys.executable, *arguments],
        env=environment(
            OTEL_TRACES_EXPORTER="console",
            OTEL_METRICS_EXPORTER="none",
            OTEL_LOGS_EXPORTER="none",
            TAPPS_AGENTS_MODE="headless",
            **more,
        ),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def one_step(project: Project, workflow_id: str) -> str:
    agent, action, _ = FIVE["s1"]
    path = project.write([{"id": "s1", "agent": agent, "action": action}], workflow_id)
    return str(path.rename(path.with_name(f"{workflow_id}.yaml")))


def names_of_spans(out: str) -> list[str]:
    """Find the JSON objects that the console exporter writes between other lines."""
    decoder, found, at = json.JSONDecoder(), [], 0
    out = f"\n{out}"
    while (at := out.find("\n{\n", at)) >= 0:
        span, at = decoder.raw_decode(out, at + 1)
        found.append(span["name"])
    return found


def test_a_program_and_its_child_get_spans_and_logs(project: Project) -> None:
    Path("app.py").write_text(APP)
    done = launch("app.py", one_step(project, "outer"), one_step(project, "inner"))

    assert done.returncode == 0, done.stderr
    runs = {one.workflow_id.split("-")[0]: one.workflow_id for one in list_runs()}
    assert runs.keys() == {"outer", "inner"}
    for name in runs.values():
        assert history(name).status == "completed"
        assert [step.name for step in history(name).steps] == ["s1"]
    assert sorted(names_of_spans(done.stdout)) == sorted(
        ["step s1", "workflow Demo", "workflow Demo started"] * 2
    )


@pytest.mark.exhaustive
def test_settings_come_from_the_environment(project: Project, tmp_path: Path) -> None:
    Path("app.py").write_text(APP)
    path = one_step(project, "outer")
    assert launch("app.py", path, TAPPS_OTEL_LOG_DIR=str(tmp_path / "logs")).returncode == 0
    assert [one.status for one in list_runs(log_dir=tmp_path / "logs")] == ["completed"]

    assert launch("app.py", path, TAPPS_OTEL_ENABLED="0").returncode == 0
    assert not list(list_runs())


@pytest.mark.exhaustive
def test_a_disabled_instrumentation_does_nothing(project: Project) -> None:
    Path("app.py").write_text(APP)
    path = one_step(project, "outer")
    done = launch("app.py", path, OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="tapps_agents")

    assert done.returncode == 0
    assert not list(list_runs())


@pytest.mark.exhaustive
def test_an_invalid_setting_costs_only_the_log(project: Project) -> None:
    Path("app.py").write_text(APP)
    done = launch("app.py", one_step(project, "outer"), TAPPS_OTEL_DURABILITY="sometimes")

    assert done.returncode == 0, done.stderr
    assert "TAPPS_OTEL_DURABILITY" in done.stderr
    assert not list(Path().rglob("events/outer-*[0-9].jsonl"))


def imported(code: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(PACKAGES)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_instrumenting_does_not_import_tapps_agents() -> None:
    code = (
        "import json, sys\n"
        "from tapps_otel.instrumentation.tapps_agents import TappsAgentsInstrumentor as T\n"
        "T().instrument()\n"
        "heavy = [m for m in ('tapps_agents', 'pydantic', 'msgspec') if m in sys.modules]\n"
        "print(json.dumps([heavy, sorted(set(T().report.hooks.values()))]))"
    )

    assert imported(code) == [[], ["pending"]]


@pytest.mark.parametrize("times", [1, 2])
def test_uninstrument_restores_every_function(times: int) -> None:
    import tapps_agents.workflow.cursor_executor
    import tapps_agents.workflow.executor  # noqa: F401

    from tapps_otel.instrumentation.tapps_agents import TappsAgentsInstrumentor
    from tapps_otel.instrumentation.tapps_agents.functions import SIGNATURES

    before = {path: function(path) for path in SIGNATURES}
    instrumentor = TappsAgentsInstrumentor()
    for _ in range(times):
        instrumentor.instrument()
    report = instrumentor.report
    assert {path for path in SIGNATURES if function(path) is not before[path]} == {
        path for path in SIGNATURES if before[path] is not None
    }
    instrumentor.uninstrument()

    assert {path: function(path) for path in SIGNATURES} == before
    assert set(report.hooks.values()) == {"off"}


def function(path: str) -> Any:
    module, class_name, method = path.rsplit(".", 2)
    home = sys.modules[f"tapps_agents.workflow.{module}"]
    return vars(getattr(home, class_name)).get(method)
