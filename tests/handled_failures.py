"""Workflows that handle the failure of a step, seen without a crash and after one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from crashes import die_at, go, killed
from tapps_otel import step, workflow

__all__ = ["both", "handling"]


def handling(
    body: Callable[..., Any], look: Callable[[Any], Any], *args: Any, **options: Any
) -> Any:
    """A workflow that looks at the failure of a step, and then calls another step.

    Its ``seen`` has what ``look`` returned, once for each execution that completed.
    """
    failing = step(name="failing")(body)

    @step
    def after() -> None:
        die_at("after")

    @workflow
    def flow() -> None:
        found = None
        try:
            failing(*args, **options)
        except BaseException as error:  # noqa: BLE001 - any
            found = look(error)
        after()
        seen.append(found)

    seen: list[Any] = []
    flow.seen = seen  # type: ignore[attr-defined]
    return flow


def both(flow: Any) -> tuple[Any, Any]:
    """What its handler found without a crash, and when it was killed and resumed."""
    go(flow, workflow_id="uncrashed")
    killed(lambda: go(flow), at="after")
    go(flow)
    uncrashed, resumed = flow.seen
    return uncrashed, resumed
