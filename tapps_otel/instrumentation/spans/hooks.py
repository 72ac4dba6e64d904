"""The rules over spans that are in use: each is put on like the hooks of an executor."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace

from tapps_otel import settings
from tapps_otel.instrumentation.guarding import guarded
from tapps_otel.instrumentation.patching import MISSING, OFF, ON, HookState, Patches
from tapps_otel.instrumentation.spans.runs import SpanRuns
from tapps_otel.otel.capture import roots
from tapps_otel.otel.delivery.provider import ensure_provider, make_local_provider
from tapps_otel.otel.delivery.span_starts import add_span_starts
from tapps_otel.past.span_rules import PRESETS, SpanRules, know

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["SpanHooks", "patches"]

_runs: Final = SpanRuns()
_PROVIDER: Final = "the spans of the tracer provider"


def patches(name: str, rules: SpanRules | None = None) -> SpanHooks:
    """Return what puts rules on: those given, or the ones that come with this package."""
    return SpanHooks(name, PRESETS[name] if rules is None else rules)


class SpanHooks(Patches):
    """Rules over spans, and whether they see the spans of this process."""

    def __init__(self, name: str, rules: SpanRules) -> None:
        super().__init__(name, ())
        self._name, self._rules = name, rules
        self._state: HookState = OFF

    def states(self) -> dict[str, HookState]:
        """Whether spans are seen."""
        return {_PROVIDER: self._state}

    def put_on(self) -> None:
        """Open runs by the rules from now on. Raises nothing."""
        if self._state == ON:
            return
        self._state = MISSING
        with guarded(f"{self._name}: its runs are not logged"):
            know(self._name, self._rules)
            provider = _provider()
            if not hasattr(provider, "add_span_processor"):
                kind = type(provider).__qualname__
                self.problem = f"not instrumented: {kind} is not a tracer provider of the SDK"
                return
            add_span_starts(provider)
            _runs.use(self._name, self._rules)
            roots.ask(_runs)
            self._state, self.problem = ON, None
            if self._name == "pydantic_ai":
                _have_pydantic_ai_make_spans()

    def take_off(self) -> None:
        """Open no more runs; those that are open still end with their span."""
        _runs.drop(self._name)
        self._state = OFF


def _provider() -> Any:
    """Return the provider of the process; make one where there is none."""
    config = settings.current()
    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider):
        return ensure_provider(config) or make_local_provider(config)
    return provider


def _have_pydantic_ai_make_spans() -> None:
    """Switch the spans of Pydantic AI on, unless the program has; without what people wrote."""
    if find_spec("pydantic_ai") is None:
        return
    import wrapt

    wrapt.register_post_import_hook(_on_import, "pydantic_ai")  # whole, not a part of it


def _on_import(module: ModuleType) -> None:
    with guarded("pydantic_ai makes no spans: call Agent.instrument_all()"):
        agent = module.Agent
        if not getattr(agent, "_instrument_default", False):
            agent.instrument_all(module.InstrumentationSettings(include_content=False))
