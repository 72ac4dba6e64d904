"""The folder of runs: which files belong to a run, and which runs there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapps_otel.names import check_workflow_id

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Store"]


class Store:
    """A folder of logs. Files that are not ours are left alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def log_path(self, workflow_id: str) -> Path:
        """Where the run's log is, or would be.

        :raises InvalidIdError: the id cannot name a file in this folder
        """
        return self.folder / f"{check_workflow_id(workflow_id)}.jsonl"

    def lease_path(self, workflow_id: str) -> Path:
        """Where the run's lease is, or would be."""
        return self.folder / f"{check_workflow_id(workflow_id)}.lease"

    def blobs_folder(self, workflow_id: str) -> Path:
        """Where the run's large values are, or would be."""
        return self.folder / f"{check_workflow_id(workflow_id)}.blobs"
