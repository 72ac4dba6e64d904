"""tapps-agents' own persistence works while it is instrumented.

These follow its own tests, which are in no distribution of it; ``test_compatibility.py`` runs those
if there is a checkout.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tapps_agents_project import Project
from tapps_otel.instrumentation import instrument


@pytest.fixture(autouse=True)
def _instrumented(_own_place: None) -> None:
    instrument("tapps_agents")


@pytest.fixture
def manager(tmp_path: Path) -> Any:
    from tapps_agents.workflow.state_manager import AdvancedStateManager

    return AdvancedStateManager(tmp_path / "state", compression=False)


def state(workflow_id: str = "test-workflow", **fields: Any) -> Any:
    from tapps_agents.workflow.models import WorkflowState

    given: dict[str, Any] = {
        "current_step": "s2",
        "completed_steps": ["s1"],
        "variables": {"key": "value"},
        "status": "running",
    }
    return WorkflowState(workflow_id=workflow_id, started_at=datetime.now(), **given | fields)  # noqa: DTZ005 - as tapps-agents does


# ---------------------------------------------------------------- executor


def test_manual_progress_is_loaded_by_another_executor(project: Project) -> None:
    project.write()
    first = project.executor(auto_detect=False)
    assert first.start().current_step == "s1"
    first.mark_step_complete(step_id="s1")

    from tapps_agents.workflow.executor import WorkflowExecutor

    other = WorkflowExecutor(project_root=project.root, auto_detect=False)
    loaded = other.load_last_state()

    assert loaded.workflow_id == first.state.workflow_id
    assert (loaded.current_step, loaded.completed_steps) == ("s2", ["s1"])
    assert [step.id for step in other.workflow.steps][:2] == ["s1", "s2"]


# ---------------------------------------------------------------- state manager


def test_saving_writes_state_metadata_history_and_pointer(manager: Any, tmp_path: Path) -> None:
    path = manager.save_state(state(), tmp_path / "flow.yaml")

    folder = tmp_path / "state"
    assert (path.exists(), path.suffix) == (True, ".json")
    assert (folder / "test-workflow.meta.json").exists()
    assert list((folder / "history").glob("test-workflow-*.json"))
    pointer = json.loads((folder / "last.json").read_text())
    assert (pointer["workflow_id"], pointer["state_file"]) == ("test-workflow", str(path))


@pytest.mark.parametrize("asked", [{"workflow_id": "test-workflow"}, {}, {"validate": True}])
def test_saved_states_are_loaded(manager: Any, asked: dict[str, Any]) -> None:
    from tapps_agents.workflow.state_manager import CURRENT_STATE_VERSION

    saved = state()
    manager.save_state(saved)
    loaded, metadata = manager.load_state(**asked)

    for field in ("workflow_id", "current_step", "completed_steps", "status", "variables"):
        assert getattr(loaded, field) == getattr(saved, field)
    assert (metadata.version, metadata.workflow_id) == (CURRENT_STATE_VERSION, "test-workflow")


def test_states_are_listed_for_all_runs_and_for_one(manager: Any) -> None:
    for number in range(3):
        manager.save_state(state(f"workflow-{number}"))

    assert len(manager.list_states()) == 3
    assert {one["workflow_id"] for one in manager.list_states(workflow_id="workflow-0")} == {
        "workflow-0"
    }


def test_a_compressed_state_is_loaded(tmp_path: Path) -> None:
    from tapps_agents.workflow.state_manager import AdvancedStateManager

    manager = AdvancedStateManager(tmp_path / "state", compression=True)
    assert manager.save_state(state("packed")).name.endswith(".gz")
    loaded, metadata = manager.load_state(workflow_id="packed")

    assert (loaded.workflow_id, metadata.compression) == ("packed", True)


# ---------------------------------------------------------------- validator and migrator


def plain(**fields: Any) -> dict[str, Any]:
    return {"workflow_id": "w", "started_at": "2026-01-01T00:00:00", "status": "running"} | fields


def test_equal_states_have_equal_checksums() -> None:
    from tapps_agents.workflow.state_manager import StateValidator

    first, again = (StateValidator.calculate_checksum(plain(variables={"a": 1})) for _ in range(2))

    assert first == again
    assert len(first) == 64
    assert StateValidator.calculate_checksum(plain(variables={"a": 2})) != first


@pytest.mark.parametrize(
    ("data", "checksum", "said"),
    [
        (plain(), None, None),
        ({"workflow_id": "w", "status": "running"}, None, "Missing required field"),
        (plain(status="odd"), None, "Invalid status"),
        (plain(), "0" * 64, "Checksum mismatch"),
    ],
)
def test_states_are_validated(data: dict[str, Any], checksum: str | None, said: str | None) -> None:
    from tapps_agents.workflow.state_manager import StateValidator

    valid, error = StateValidator.validate_state(data, checksum)

    assert valid is (said is None)
    assert error is None if said is None else said in error


def test_only_old_states_are_migrated() -> None:
    from tapps_agents.workflow.state_manager import StateMigrator

    migrated = StateMigrator.migrate_state(plain(), "1.0", "2.0")
    assert (migrated["skipped_steps"], migrated["artifacts"], migrated["variables"]) == ([], {}, {})
    assert StateMigrator.migrate_state(plain(), "2.0", "2.0") == plain()


# ---------------------------------------------------------------- a whole run


async def test_an_instrumented_run_leaves_the_same_files(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tapps_otel.instrumentation import uninstrument

    monkeypatch.setenv("TAPPS_AGENTS_PRESERVE_WORKFLOW_ID", "true")
    project.write()
    watched = await project.executor().execute()
    with_us = files(project.root)
    uninstrument("tapps_agents")
    for path in project.root.glob(".tapps-agents/workflow-state/**/*"):
        if path.is_file():
            path.unlink()
    bare = await project.executor().execute()
    ours = {".tapps-agents/workflow-state/events/demo.jsonl"}

    assert with_us - ours == files(project.root)
    for field in ("status", "completed_steps", "skipped_steps", "current_step", "error"):
        assert getattr(watched, field) == getattr(bare, field)
    assert watched.variables.keys() == bare.variables.keys()


def files(root: Path) -> set[str]:
    """The files of a project, without the digits of times in their names."""
    found = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return {
        "".join(char for char in str(path) if not char.isdigit())
        if "demo-" in path.name
        else str(path)
        for path in found
        if "__pycache__" not in path.parts
    }
