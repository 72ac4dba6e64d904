"""Which steps an exception left: a mark on the exception itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapps_otel.run.failures.exception_parts import MARK, dict_of, links_of, members_of

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["caused_by", "left_a_step", "mark"]


def mark(error: BaseException, workflow_id: str, step_id: str) -> None:
    """Mark ``error`` as the exception that left this step."""
    dict_of(error).setdefault(MARK, []).append((workflow_id, step_id))


def left_a_step(error: BaseException) -> bool:
    """Whether ``error`` has left a step, of whatever run."""
    return bool(dict_of(error).get(MARK))


def caused_by(
    error: BaseException,
    workflow_id: str,
    parent: str | None,
    *,
    is_from_outside: Callable[[BaseException], bool],
) -> list[str]:
    """The steps of a scope whose exception left it with ``error``.

    These are of the exception itself, its cause, the members of a group; of its context only when
    the scope's own code raised it: a step's exception is merely raised *while* another is handled,
    and so is one from outside.

    :param is_from_outside: whether no code of the scope raised an exception (Ctrl-C, a pause)
    """
    prefix = "" if parent is None else f"{parent}/"
    found: dict[str, None] = {}
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        left = [
            step_id
            for run, step_id in dict_of(one).get(MARK, ())
            if run == workflow_id
            and step_id.startswith(prefix)
            and "/" not in step_id[len(prefix) :]
        ]
        found.update(dict.fromkeys(left[-1:]))  # one object may have left several, one by one
        if not left:
            cause, context = links_of(one)
            waiting += [cause, None if is_from_outside(one) else context, *members_of(one)]
    return list(found)
