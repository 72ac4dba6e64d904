"""``verify``: check logs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tapps_otel.cli.codes import Code
from tapps_otel.cli.terminal import err, out, write_json
from tapps_otel.report.lines import Line
from tapps_otel.report.text import counted, plain

if TYPE_CHECKING:
    from tapps_otel.audit.comparison import Comparison, Group
    from tapps_otel.audit.verify import VerifyReport
    from tapps_otel.log.reader import CheckReport

__all__ = ["verify"]


def verify(
    workflow_id: str | None, against: str | None, *, as_json: bool, log_dir: Path | None
) -> Code:
    """Check one run, or all runs of the log folder."""
    from tapps_otel.audit import verify as audit
    from tapps_otel.run.lookup import store_of

    if workflow_id is not None:
        found = audit.verify(workflow_id, against=against, log_dir=log_dir)
        if as_json:
            write_json(_json(found))
        else:
            _say(found)
        return Code.OK if found.ok else Code.FAILED
    code, values = Code.OK, []
    for found in audit.verify_all(against=against, log_dir=log_dir):
        code = code if found.ok else Code.FAILED
        values.append(_json(found))
        if not as_json:
            _say(found)
    if as_json:
        write_json(values)
    elif not values:
        err().say(f"no runs in {plain(store_of(log_dir).shown)}")
    return code


def _say(found: VerifyReport) -> None:
    word = "ok" if found.ok else "damaged" if found.damaged else "differs"
    style = "good" if found.ok else "bad"
    head = f"  {counted(found.log.seq, 'event')}, head {found.log.sha or '-'}"
    terminal = out()
    terminal.say(Line.of((f"{word:<8}", style), (plain(found.workflow_id), "strong"), head))
    for text in found.problems:
        terminal.say(Line.of("        ", (plain(text), "bad")))
    for text in found.notes:
        terminal.say(Line.of("        ", (plain(text), "warn")))


def _json(found: VerifyReport) -> dict[str, Any]:
    return {
        "workflow_id": found.workflow_id,
        "ok": found.ok,
        **_log_json(found.log),
        "problems": list(found.problems),
        "notes": list(found.notes),
        "beside": [_log_json(one) for one in found.beside],
        "against": found.against and _against_json(found.against),
    }


def _log_json(log: CheckReport) -> dict[str, Any]:
    return {
        "path": str(log.path),
        "seq": log.seq,
        "sha": log.sha,
        "size": log.size,
        "declared_damage": [list(one) for one in log.repairs],
    }


def _against_json(found: Comparison) -> dict[str, Any]:
    groups = ("missing", "different", "doubled", "extra", "added")
    return {
        "place": found.place,
        "running": found.running,
        "spans": found.spans,
        "equal": found.equal,
        "unsampled": found.unsampled,
        **{name: _group_json(getattr(found, name)) for name in groups},
        "heads": [{**head._asdict(), "ok": found.confirms(head)} for head in found.heads],
        "reduced": found.reduced,
        "not_compared": found.lacks if found.reduced else None,
    }


def _group_json(group: Group) -> dict[str, Any]:
    return {"count": group.count, "spans": [one._asdict() for one in group.spans]}
