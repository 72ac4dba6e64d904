"""OpenAI Agents, by the events of its own tracing: agents, tools, hand-offs and guardrails.

A trace of its is a run, and each of these a step. What its tracing wraps around them (tasks, turns)
is not shown: what is inside belongs to the step outside.
"""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

from tapps_otel.errors import TappsError
from tapps_otel.instrumentation.entry_point import Instrumentor
from tapps_otel.instrumentation.external_log import ExternalLog
from tapps_otel.instrumentation.guarding import guarded
from tapps_otel.instrumentation.patching import MISSING, OFF, ON, PENDING, HookState, Patches
from tapps_otel.run import queries

if TYPE_CHECKING:
    from types import ModuleType

    from tapps_otel.log.store import RunSummary

__all__ = ["OpenAIAgentsInstrumentor", "patches"]

_NAME: Final = "openai_agents"
_HOOK: Final = "agents.add_trace_processor"
_AROUND: Final = frozenset({"task", "turn"})  # spans that enclose what is worth a step
_AGENT: Final = "agent"
_REATTACHED: Final = "ReattachedTrace"
_FACTS: Final = ("from_agent", "to_agent", "triggered")  # that a span has at its end


class Processor:
    """A ``TracingProcessor`` that writes traces and spans into the logs of runs.

    :ivar on: whether runs that start now are logged
    """

    def __init__(self) -> None:
        self.on = True
        self._log = ExternalLog("openai-agents")
        self._errors: dict[str, str] = {}  # by trace: why its last agent failed
        self._continued: dict[str, str] = {}  # by span: the trace that continues with it

    def on_trace_start(self, trace: Any) -> None:
        """Begin a run, of a group the next one; or continue that of the trace."""
        if self.on:
            self._begin(trace)

    def on_trace_end(self, trace: Any) -> None:
        """End the run: as failed, if its last agent did."""
        self._end(trace.trace_id)

    def _begin(self, trace: Any) -> None:
        trace_id = trace.trace_id
        self._log.run_begin(
            trace_id,
            name=trace.name,
            thread=getattr(trace, "group_id", None) or trace_id,
            continues=lambda last: "resume" if _trace_of(last) == trace_id else "new",
            about={"trace": trace_id},
            attach=True,
        )

    def _end(self, trace_id: str) -> None:
        error = self._errors.pop(trace_id, None)
        status = "completed" if error is None else "failed"
        self._log.run_end(trace_id, status=status, error=error)

    def on_span_start(self, span: Any) -> None:
        """Begin a step.

        :raises LogWriteError: it cannot be written, and ``on_log_failure`` is ``stop``
        """
        with guarded("a step is not logged", refuses=True):
            key, parent = span.span_id, span.parent_id or span.trace_id
            if span.parent_id is None and self.on:
                self._continue(span)
            kind, facts = span.span_data.type, _facts(span)
            if kind in _AROUND:
                self._log.alias(key, parent)
                return
            name = facts.get("name") or kind
            if kind == _AGENT:
                self._errors.pop(span.trace_id, None)  # whatever failed before was handled
            self._log.step_begin(
                key,
                parent=parent,
                name=str(name),
                agent=str(name) if kind == _AGENT else None,
                action=kind,
                attach=True,
            )

    def on_span_end(self, span: Any) -> None:
        """End a step."""
        with guarded("the end of a step is not logged"):
            kind, facts, error = span.span_data.type, _facts(span), _error(span.error)
            if error is not None and kind in {_AGENT, "turn"}:
                self._errors[span.trace_id] = error
            held: dict[str, Any] = {name: facts[name] for name in _FACTS if name in facts}
            self._log.step_end(span.span_id, error=error, attributes=held)
            trace_id = self._continued.pop(span.span_id, None)
            if trace_id is not None:
                self._end(trace_id)

    def _continue(self, span: Any) -> None:
        """Continue the run of a trace that the SDK reattaches, which it reports by spans alone.

        It does so where a run is continued from a ``RunState`` in the process that made it.
        """
        tracing = sys.modules.get("agents.tracing")
        trace = None if tracing is None else tracing.get_current_trace()
        if type(trace).__name__ == _REATTACHED and span.trace_id not in self._continued.values():
            self._continued[span.span_id] = span.trace_id
            self._begin(trace)

    def force_flush(self) -> None:
        """Do nothing: nothing waits."""

    def shutdown(self) -> None:
        """Do nothing: each event is in the log."""


def _trace_of(last: RunSummary) -> Any:
    """The SDK's trace that a run was logged by; ``None`` if its log does not tell."""
    try:
        first = next(queries.events(last.workflow_id), None)
    except TappsError:
        return None
    return None if first is None or first.workflow is None else first.workflow.get("trace")


def _facts(span: Any) -> dict[str, Any]:
    """What a span exports of its work, without what people and models wrote."""
    data = span.span_data
    found = {name: getattr(data, name, None) for name in ("name", *_FACTS)}
    return {name: value for name, value in found.items() if value is not None}


def _error(error: Any) -> str | None:
    """An error of a span in words."""
    if not error:
        return None
    more = error.get("data") or {}
    reason = more.get("error") or more.get("guardrail")
    return ": ".join(str(one) for one in (error.get("message"), reason) if one)


class _ProcessorHook(Patches):
    """Adds the processor to the tracing of the package, once that is imported."""

    def __init__(self) -> None:
        super().__init__(_NAME, ())
        self._processor = Processor()
        self._added = self._awaited_import = False
        self._state: HookState = OFF

    def states(self) -> dict[str, HookState]:
        """Whether the processor is added."""
        return {_HOOK: self._state}

    def put_on(self) -> None:
        """Add it, or do so when the package is imported. Raises nothing."""
        self._processor.on = True
        if self._state != MISSING:
            self._state = ON if self._added else PENDING
        if not self._awaited_import:
            import wrapt

            self._awaited_import = True
            wrapt.register_post_import_hook(self._add, "agents")

    def _add(self, module: ModuleType) -> None:
        add = getattr(module, "add_trace_processor", None)
        if add is None:  # another module of this name, or another version
            self._state = MISSING
            self.problem = "not instrumented: agents has no add_trace_processor"
            return
        with guarded("runs of openai-agents are not logged"):
            add(self._processor)
            self._added = True
            self._state = ON if self._processor.on else OFF

    def take_off(self) -> None:
        """Log no more runs: a processor cannot be removed. Those in progress still end."""
        self._processor.on = False
        if self._state != MISSING:
            self._state = OFF


_hook: Final = _ProcessorHook()


def patches() -> Patches:
    """Return what adds the processor: one for the process."""
    return _hook


class OpenAIAgentsInstrumentor(Instrumentor):
    """It does what ``instrument("openai_agents")`` does."""

    target = _NAME
    versions = "openai-agents >= 0.24"
    patches = staticmethod(patches)

    def is_installed(self) -> bool:
        """Whether the distribution is: a program may have a package ``agents`` of its own."""
        try:
            version("openai-agents")
        except PackageNotFoundError:
            return False
        return True
