"""``answer``: answer a question of a paused run."""

from __future__ import annotations

from pathlib import Path

from tapps_otel.cli.codes import Code
from tapps_otel.cli.hints import resume_hint
from tapps_otel.cli.terminal import out
from tapps_otel.cli.usage import parse_json
from tapps_otel.report.lines import Line
from tapps_otel.report.text import plain

__all__ = ["answer"]


def answer(
    workflow_id: str,
    step_id: str | None,
    value: str,
    *,
    by: str | None = None,
    reason: str | None = None,
    log_dir: Path | None,
) -> Code:
    """Write an answer into the log of a paused run.

    :param step_id: the pause; ``None`` where the run asks one question
    :param value: JSON
    :param by: who answers
    :param reason: why, for the log
    """
    from tapps_otel.run import answering
    from tapps_otel.run.continuing import WAITING, outermost
    from tapps_otel.run.lookup import find

    store, workflow_id = find(workflow_id, log_dir)
    answered = answering.answer(
        workflow_id, parse_json(value, "--json"), step=step_id, by=by, reason=reason,
        log_dir=log_dir,
    )  # fmt: skip
    around = outermost(store, store.summary(workflow_id), WAITING)
    hint = resume_hint(store, around.workflow_id, log_dir)
    out().say(Line.of((plain(answered), "strong"), " is answered"), *hint)
    return Code.OK
