"""What the hooks rely on, compared with the installed version of tapps-agents."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from commands import environment
from programs import PACKAGES
from tapps_agents_project import Project, version
from tapps_otel.errors import RunConflictError
from tapps_otel.instrumentation import instrument, uninstrument
from tapps_otel.instrumentation.tapps_agents import resume
from tapps_otel.instrumentation.tapps_agents.functions import SIGNATURES
from tapps_otel.instrumentation.tapps_agents.hooks import WRAPPERS

Story = Callable[..., list[str]]

SINCE = {"cursor_executor.CursorWorkflowExecutor._can_execute_step": (3, 6)}
COROUTINES = {"execute", "run", "execute_parallel", "_initialize_run", "_process_parallel_results"}


def find(path: str) -> Any:
    module, class_name, method = path.rsplit(".", 2)
    home = importlib.import_module(f"tapps_agents.workflow.{module}")
    return vars(getattr(home, class_name)).get(method)


def parameters(function: Any) -> str:
    """A signature without its annotations and defaults."""
    found = inspect.signature(function).parameters.values()
    bare = [one.replace(annotation=one.empty, default=one.empty) for one in found]
    return str(inspect.Signature(bare))


@pytest.mark.parametrize("path", SIGNATURES)
def test_hooked_functions_have_the_expected_parameters(path: str) -> None:
    function = find(path)
    if function is None and version() < SINCE.get(path, (0,)):
        return

    assert parameters(function) == SIGNATURES[path]
    method = path.rpartition(".")[2]
    is_coroutine = method in COROUTINES or path.endswith("CursorWorkflowExecutor.start")
    assert inspect.iscoroutinefunction(function) is is_coroutine


def test_every_hooked_function_has_a_wrapper() -> None:
    assert set(SIGNATURES) == set(WRAPPERS)


def test_a_wrapped_coroutine_function_remains_one() -> None:
    from tapps_agents.workflow.executor import WorkflowExecutor

    instrument("tapps_agents")

    assert inspect.iscoroutinefunction(WorkflowExecutor.execute)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (
            "WorkflowState",
            """workflow_id started_at current_step completed_steps skipped_steps artifacts
            variables status error step_executions""",
        ),
        ("Artifact", "name path status created_by created_at"),
        (
            "StepExecution",
            "step_id agent action started_at completed_at duration_seconds status error",
        ),
        ("WorkflowStep", "id agent action next requires creates metadata"),
    ],
)
def test_models_have_the_fields_that_are_set(kind: str, fields: str) -> None:
    models = importlib.import_module("tapps_agents.workflow.models")

    assert set(fields.split()) <= {one.name for one in dataclasses.fields(getattr(models, kind))}


def test_other_methods_that_are_called_exist() -> None:
    auto = importlib.import_module("tapps_agents.workflow.auto_progression")
    parallel = importlib.import_module("tapps_agents.workflow.parallel_executor")
    manager = auto.AutoProgressionManager()

    assert manager.step_retry_counts == {}
    assert manager.get_progression_history("s1") == []
    assert parameters(parallel.ParallelStepExecutor.find_ready_steps) == (
        "(self, workflow_steps, completed_step_ids, running_step_ids, available_artifacts)"
    )


# ---------------------------------------------------------------- another version


async def test_without_an_optional_function_the_rest_is_logged(
    project: Project,
    story: Story,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from tapps_agents.workflow.executor import WorkflowExecutor

    monkeypatch.delattr(WorkflowExecutor, "skip_step")
    report = instrument("tapps_agents")

    assert not report.ok
    assert report.problem is None
    hooks = report.hooks
    assert hooks["tapps_agents.workflow.executor.WorkflowExecutor.skip_step"] == "missing"
    assert "has no WorkflowExecutor.skip_step" in caplog.text
    project.write()
    await project.executor().execute()
    assert story()[-1] == "workflow_end completed"


async def test_without_an_essential_function_nothing_is_wrapped(
    project: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from tapps_agents.workflow.executor import WorkflowExecutor
    from tapps_agents.workflow.parallel_executor import ParallelStepExecutor

    before = dict(vars(WorkflowExecutor))
    original = ParallelStepExecutor.execute_parallel
    monkeypatch.delattr(ParallelStepExecutor, "execute_parallel")
    report = instrument("tapps_agents")

    assert report.problem is not None
    assert "has no ParallelStepExecutor.execute_parallel" in str(report)
    assert dict(vars(WorkflowExecutor)) == before
    assert "Its runs are not logged" in caplog.text
    monkeypatch.setattr(ParallelStepExecutor, "execute_parallel", original, raising=False)
    project.write()
    assert (await project.executor().execute()).status == "completed"
    assert not list(Path().rglob("events/demo-*[0-9].jsonl"))


async def test_resume_without_its_hooks_is_refused(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tapps_agents.workflow.executor import WorkflowExecutor

    instrument("tapps_agents")
    project.write()
    executor = project.executor()
    state = await executor.execute(max_steps=2)
    uninstrument("tapps_agents")
    monkeypatch.delattr(WorkflowExecutor, "start")
    before = project.did.all
    with pytest.raises(RunConflictError, match="no hook on start"):
        await resume(project.executor(), state.workflow_id)

    assert project.did.all == before


# ---------------------------------------------------------------- tests of tapps-agents


PLUGIN = "from tapps_otel import instrument\nprint(instrument('tapps_agents'))\n"
OUTCOME = re.compile(r"^(PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS) (\S+)", re.MULTILINE)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_tapps_agents_own_tests_have_the_same_outcomes(tmp_path: Path) -> None:
    source = os.environ.get("TAPPS_AGENTS_SRC")
    if not source:
        pytest.skip("needs a checkout of tapps-agents: set TAPPS_AGENTS_SRC to its folder")
    Path("instrumented.py").write_text(PLUGIN)

    def run(*plugins: str) -> dict[str, str]:
        command = [sys.executable, "-m", "pytest", "-q", "-rA", "--tb=no", "-p", "no:randomly"]
        tests = [str(path) for path in (Path(source, "tests/unit/workflow"),) if path.exists()]
        done = subprocess.run(
            [*command, *plugins, *(tests or [source])],
            cwd=source,
            env=environment(PYTHONPATH=f"{tmp_path}:{PACKAGES}"),
            capture_output=True,
            text=True,
            check=False,
        )
        return {test: outcome for outcome, test in OUTCOME.findall(done.stdout)}

    bare = run()
    assert "PASSED" in bare.values()
    assert run("-p", "instrumented") == bare
