"""Runs that tapps-agents' own command line starts, under ``opentelemetry-instrument``."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from commands import LAUNCHER, environment
from independent_checker import check
from tapps_agents_project import LOGS, Project, only_run
from tapps_otel import history

# Both command lines in processes of their own, whose agents only note that they were called.
WITH_AGENTS = """
import importlib, os, runpy, signal, sys

def stand_in(name):
    async def run(self, command, **given):
        with open("agents.txt", "a") as file:
            file.write(name + "\\n")
        if name == os.environ.get("DEADLY"):
            os.kill(os.getpid(), signal.SIGKILL)
        return {"by": name, "scores": {"overall_score": 90.0, "security_score": 9.0}}
    return run

async def activate(self, *_, **__): ...

for name in ("enhancer", "debugger", "implementer", "reviewer", "tester", "orchestrator"):
    module = importlib.import_module(f"tapps_agents.agents.{name}.agent")
    agent = getattr(module, f"{name.title()}Agent")
    agent.run, agent.activate = stand_in(name), activate
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
FIRST = ["enhancer", "debugger", "implementer", "reviewer", "tester"]


def run(*command: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env=environment(
            OTEL_TRACES_EXPORTER="none",
            OTEL_METRICS_EXPORTER="none",
            OTEL_LOGS_EXPORTER="none",
            TAPPS_AGENTS_MODE="headless",
            PATH="",  # the reviewer asks for the version of each linter it finds
            **more,
        ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.timeout(300)
@pytest.mark.exhaustive
def test_a_preset_that_was_killed_is_resumed_by_our_command(project: Project) -> None:
    from tapps_agents.workflow.preset_loader import PresetLoader

    if PresetLoader().load_preset("fix") is None:
        pytest.skip("this version comes without presets")
    Path("with_agents.py").write_text(WITH_AGENTS)
    Path("target.py").write_text("x = 1\n")
    fix = ["tapps_agents.cli", "workflow", "fix", "--file", "target.py", "--auto"]
    prompt = ["--prompt", "make it two"]
    started = run(*(LAUNCHER, sys.executable, "with_agents.py", *fix, *prompt), DEADLY="tester")
    assert started.returncode == -signal.SIGKILL, started.stdout + started.stderr
    assert project.did.all == FIRST
    name = only_run()
    assert [step.name for step in history(name).steps][-1] == "testing"

    resumed = run(sys.executable, "with_agents.py", "tapps_otel", "resume", name)

    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert project.did.all == [*FIRST, "tester"]  # what ends the workflow calls no agent
    found = history(name)
    assert (found.status, len(found.executions)) == ("completed", 2)
    assert b"make it two" in (found.inputs or b"")
    gate = found.by_id["review"].last.gate
    assert gate is not None
    assert gate.passed
    check(LOGS / f"{name}.jsonl")
