"""Rules over spans: which spans open a run, and which are shown as its steps. Pure.

A run's log names the rules by which it was opened, and holds a copy of them. Reports take the rules
that this process knows by that name, so that they can change later; otherwise the copy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import translate
from functools import lru_cache
from typing import Any, Final

from tapps_otel.names import SPANS

__all__ = ["PRESETS", "SpanMatch", "SpanRules", "as_json", "know", "rules_of"]

_MOST: Final = 100  # matches in one rule; a made-up log may have any number
_LONGEST: Final = 1000  # characters of a pattern


@dataclass(frozen=True, slots=True)
class SpanMatch:
    """What a span must be like: every pattern has to fit. ``*`` stands for any text.

    :param name: of the span
    :param scope: name of its instrumentation scope, which is that of its library
    :param attributes: the patterns of attributes, by their names; each must be there
    :raises TypeError: a pattern is not a text
    :raises ValueError: a pattern is longer than 1000 characters
    """

    name: str = "*"
    scope: str = "*"
    attributes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.attributes, dict):
            raise TypeError(f"attributes must be a dictionary of patterns: {self.attributes!r:.80}")
        for pattern in (self.name, self.scope, *self.attributes, *self.attributes.values()):
            if not isinstance(pattern, str):
                raise TypeError(f"a pattern must be a text: {pattern!r:.80}")
            if len(pattern) > _LONGEST:
                raise ValueError(f"a pattern has at most {_LONGEST} characters: {pattern!r:.80}")

    def fits(self, name: str, scope: str, attributes: Mapping[str, Any]) -> bool:
        """Whether a span with this name, scope and attributes is one."""
        for wanted, pattern in self.attributes.items():  # first, because they tell most apart
            if wanted not in attributes or not _fits(pattern, str(attributes[wanted])):
                return False
        return _fits(self.name, name) and _fits(self.scope, scope)


@dataclass(frozen=True, slots=True)
class SpanRules:
    """Which spans open a run, and which spans below them are its steps.

    Only what a span has when it starts can open a run. Steps are found when a log is read, also by
    what their spans have at the end.

    :param root: a span that one of these fits opens a run, unless it is inside of one
    :param steps: spans of a run that are its steps
    :param run_id: the attribute of the root that has the run's id; an id that has a log becomes
        ``<id>.2``. By default, an id is made from the name
    :param thread: the attribute of the root that has the id of what the run is a turn of, as a
        conversation: its runs are ``<thread>``, ``<thread>.2`` and so on
    :param run_name: the attribute of the root that names the workflow; by default, the span's name
    :param agent: the attribute that names the agent of a step
    :param action: the attribute that tells what a step does
    :raises TypeError: root or steps are neither a match nor a list of matches, or a name is no text
    :raises ValueError: no root, or more than 100 matches
    """

    root: SpanMatch | Sequence[SpanMatch]
    steps: SpanMatch | Sequence[SpanMatch] = ()
    run_id: str | None = None
    thread: str | None = None
    run_name: str | None = None
    agent: str | None = "gen_ai.agent.name"
    action: str | None = "gen_ai.operation.name"

    def __post_init__(self) -> None:
        for what in ("root", "steps"):
            object.__setattr__(self, what, _matches(what, getattr(self, what)))
        for what in ("run_id", "thread", "run_name", "agent", "action"):
            name = getattr(self, what)
            if not isinstance(name, str | None):
                raise TypeError(f"{what} must be the name of an attribute: {name!r:.80}")
        if not self.root:
            raise ValueError("rules without a root open no run: name one, as SpanMatch(name=...)")

    def is_root(self, name: str, scope: str, attributes: Mapping[str, Any]) -> bool:
        """Whether a span opens a run."""
        return _any_fits(self.root, name, scope, attributes)

    @property
    def step_attributes(self) -> frozenset[str]:
        """Names of the attributes that tell, besides name and scope, whether a span is a step."""
        steps: Any = self.steps  # a tuple by now
        return frozenset(name for one in steps for name in one.attributes)

    def is_step(self, name: str, scope: str, attributes: Mapping[str, Any]) -> bool:
        """Whether a span of a run is a step."""
        return _any_fits(self.steps, name, scope, attributes)


def _matches(what: str, given: object) -> tuple[SpanMatch, ...]:
    found = (given,) if isinstance(given, SpanMatch) else given
    if not isinstance(found, Sequence) or not all(isinstance(one, SpanMatch) for one in found):
        raise TypeError(f"{what} must be a SpanMatch, or a list of them: {given!r:.80}")
    if len(found) > _MOST:
        raise ValueError(f"{what} has {len(found)} matches, of at most {_MOST}")
    return tuple(found)


def _any_fits(matches: Any, name: str, scope: str, attributes: Mapping[str, Any]) -> bool:
    for one in matches:  # noqa: SIM110 - each span comes here, and `any` takes twice as long
        if one.fits(name, scope, attributes):
            return True
    return False


def _fits(pattern: str, text: str) -> bool:
    if pattern in {"*", text}:
        return True
    match = _compiled(pattern)
    return match is not None and match(text) is not None


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> Any:
    """What matches texts with a pattern; ``None`` if only the pattern itself would match."""
    return re.compile(translate(pattern)).match if set(pattern) & set("*?[") else None


# -- the rules that come with this package

_OPERATION: Final = "gen_ai.operation.name"
_CONVERSATION: Final = "gen_ai.conversation.id"
_AGENT: Final = "gen_ai.agent.name"


def _operations(*names: str, scope: str = "*") -> tuple[SpanMatch, ...]:
    return tuple(SpanMatch(scope=scope, attributes={_OPERATION: name}) for name in names)


_STEPS: Final = _operations(
    "chat", "generate_content", "text_completion", "embeddings", "retrieval", "execute_tool",
    "invoke_agent", "invoke_workflow",
)  # fmt: skip
_FRAMEWORK: Final = "agent_framework*"

PRESETS: Final[dict[str, SpanRules]] = {
    # OpenTelemetry's conventions for generative AI, whichever library follows them.
    "genai": SpanRules(
        _operations("invoke_agent", "invoke_workflow"),
        _STEPS,
        thread=_CONVERSATION,
        run_name=_AGENT,
    ),
    "pydantic_ai": SpanRules(
        _operations("invoke_agent", scope="pydantic-ai"),
        _STEPS,
        thread=_CONVERSATION,
        run_name=_AGENT,
    ),
    # Its spans of agents and models get their attributes after they have started.
    "agent_framework": SpanRules(
        [SpanMatch(f"{name}*", _FRAMEWORK) for name in ("invoke_agent ", "workflow.run")],
        [
            SpanMatch(f"{name} *", _FRAMEWORK)
            for name in ("chat", "execute_tool", "executor.process", "invoke_agent")
        ],
        run_name=_AGENT,
    ),
}
_known: Final[dict[str, SpanRules]] = dict(PRESETS)


def know(name: str, rules: SpanRules) -> None:
    """Let runs that rules of this name opened be read by these, in this process."""
    _known[name] = rules


def as_json(rules: SpanRules) -> dict[str, Any]:
    """Convert rules to JSON values, for the log."""
    return asdict(rules)


def rules_of(workflow: Mapping[str, Any]) -> SpanRules | None:
    """Return the rules by which a run is read; ``None`` for one that no rule opened.

    :param workflow: the field of that name in the log
    """
    if workflow.get("source") != SPANS or not isinstance(workflow.get("rules"), dict):
        return None
    known = _known.get(str(workflow.get("executor")))
    if known is not None:
        return known
    try:
        copy = {**workflow["rules"]}
        for what in ("root", "steps"):
            copy[what] = [SpanMatch(**one) for one in copy.get(what, ())]
        return SpanRules(**copy)
    except (ValueError, TypeError):  # a made-up log
        return SpanRules(SpanMatch())
