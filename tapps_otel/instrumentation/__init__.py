"""Executors of somebody else's: their runs get a log, a trace and a history; their code stays.

``instrument("tapps_agents")`` for one that is known here, ``instrument(Pool, ExecutorSpec(...))``
for any other. Importing this costs nothing: wrapt, OpenTelemetry and the executor itself are
imported when they are needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tapps_otel.instrumentation.patching import Patches, Report
from tapps_otel.instrumentation.spec import ExecutorSpec, Seen

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ExecutorSpec", "Report", "Seen", "instrument", "report", "uninstrument"]


def _tapps_agents() -> Patches:
    from tapps_otel.instrumentation.tapps_agents.functions import patches

    return patches()


_KNOWN: Final[dict[str, Callable[[], Patches]]] = {"tapps_agents": _tapps_agents}
_made: dict[str, Patches] = {}


def instrument(target: str | type[Any], spec: ExecutorSpec | None = None) -> Report:
    """Let the runs of an executor be logged and traced. A second call changes nothing.

    :param target: the name of an executor that is known here (``tapps_agents``); with a ``spec``
        its class, or ``package.module:Class``, which need not be imported yet
    :param spec: what is read where, for an executor that is not known here
    :returns: which hooks are on; it is live: a module that is not imported yet is ``pending``
    :raises LookupError: the name is not known here, and there is no spec
    """
    name = _name_of(target)
    if name not in _made:
        _made[name] = _make(name, spec)
    patches = _made[name]
    patches.put_on()
    return patches.report


def uninstrument(target: str | type[Any]) -> None:
    """Put every function of the executor back.

    Of a run that is under way only the end is logged from then on.
    """
    patches = _made.pop(_name_of(target), None)
    if patches is not None:
        patches.take_off()


def report(target: str | type[Any]) -> Report:
    """How the hooks of an executor stand at this moment.

    :raises LookupError: nobody asked for them
    """
    name = _name_of(target)
    if name not in _made:
        msg = f"{name} is not instrumented"
        raise LookupError(msg)
    return _made[name].report


def _name_of(target: str | type[Any]) -> str:
    if isinstance(target, str):
        return target if ":" in target else target.replace("-", "_")
    return f"{target.__module__}:{target.__qualname__}"


def _make(name: str, spec: ExecutorSpec | None) -> Patches:
    if spec is not None:
        from tapps_otel.instrumentation.watching import patches

        return patches(name, spec)
    if name not in _KNOWN:
        known = ", ".join(sorted(_KNOWN))
        msg = f"no executor {name!r} is known here, only {known}: give an ExecutorSpec for another"
        raise LookupError(msg)
    return _KNOWN[name]()
