"""DBOS: six steps, each of which says when it begins; called again it resumes."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from dbos import DBOS, DBOSConfig, SetWorkflowID


@DBOS.step()  # type: ignore[untyped-decorator]
def work(i: int) -> int:
    """One step."""
    Path(f"began-{i}").touch()
    time.sleep(float(sys.argv[1]))
    return i


@DBOS.workflow()  # type: ignore[untyped-decorator]
def six() -> int:
    """The run."""
    return sum(work(i) for i in range(1, 7))


def main() -> None:
    """Launch, which takes up what is pending; then the same run by its name."""
    config: DBOSConfig = {
        "name": "six",
        "system_database_url": f"sqlite:///{Path.cwd()}/dbos.sqlite",
        "application_version": "six",
        "executor_id": "six",
        "log_level": "ERROR",
        "enable_otlp": True,
        "otlp_traces_endpoints": [f"{os.environ['OTEL_EXPORTER_OTLP_ENDPOINT']}/v1/traces"],
    }
    DBOS(config=config)
    DBOS.launch()
    with SetWorkflowID("six"):
        DBOS.start_workflow(six).get_result()
    DBOS.destroy()


if __name__ == "__main__":
    main()
