"""What captured spans of libraries used: tokens of models, and calls of tools. Pure.

Libraries follow different conventions; :data:`ATTRIBUTES` is the one table of their names. An
agent's span often repeats the totals of the calls inside it, so only the innermost spans count: a
span is left out if one below it, in the same step, has tokens of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from msgspec import UNSET, Struct

from tapps_otel.names import ATTR

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tapps_otel.log.event import Event

__all__ = [
    "ATTRIBUTES",
    "NO_USAGE",
    "InnermostSpans",
    "ModelUsage",
    "Owner",
    "Usage",
    "UsageFold",
    "attributes_of",
    "sum_of",
    "usage_attributes",
    "usage_of",
]

# By what it tells, the names of an attribute, the preferred one first: of OpenTelemetry's GenAI
# conventions (today's, then older ones), of OpenInference, of OpenLLMetry.
ATTRIBUTES: Final[dict[str, tuple[str, ...]]] = {
    "input_tokens": (
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.prompt_tokens",
        "llm.token_count.prompt",
        "llm.usage.prompt_tokens",
    ),
    "output_tokens": (
        "gen_ai.usage.output_tokens",
        "gen_ai.usage.completion_tokens",
        "llm.token_count.completion",
        "llm.usage.completion_tokens",
    ),
    "model": (
        "gen_ai.response.model",
        "gen_ai.request.model",
        "llm.response.model_name",
        "llm.model_name",
        "llm.request.model_name",
        "embedding.model_name",
        "llm.response.model",
        "llm.request.model",
    ),
    "tool": ("gen_ai.tool.name", "tool.name"),
    # OpenLLMetry names a tool by these two: the kind, which is `tool`, and the name.
    "kind": ("traceloop.span.kind",),
    "entity": ("traceloop.entity.name",),
}
UNKNOWN: Final = "unknown"  # in place of a model that the span does not name
OTHERS: Final = "others"  # in place of further names, of which a made-up log may have any number
_ALL_NAMES: Final = frozenset(name for names in ATTRIBUTES.values() for name in names)
_MOST_NAMES: Final = 100
_LONG_NAME: Final = 200  # characters
_MOST_SPANS: Final = 10_000  # that are remembered
_MOST_PARENTS: Final = 100  # between a span and its step; only a made-up log has more


class ModelUsage(Struct, frozen=True, gc=False):
    """What the calls of one model used."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def plus(self, other: ModelUsage, sign: int = 1) -> ModelUsage:
        """Return the sum, or with ``sign`` -1 the difference."""
        return ModelUsage(
            self.calls + sign * other.calls,
            self.input_tokens + sign * other.input_tokens,
            self.output_tokens + sign * other.output_tokens,
        )


_NOTHING: Final = ModelUsage()


class Usage(Struct, frozen=True):
    """What calls of models and tools used, as captured spans of libraries tell.

    False if nothing was captured about it.

    :ivar calls: calls of models
    :ivar input_tokens: tokens that the models were given
    :ivar output_tokens: tokens that they made
    :ivar models: all three by model
    :ivar tools: calls of tools by name
    """

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    models: dict[str, ModelUsage] = {}
    tools: dict[str, int] = {}

    def __bool__(self) -> bool:
        return self is not NO_USAGE and self != NO_USAGE

    def plus(self, other: Usage, sign: int = 1) -> Usage:
        """Return the sum, or with ``sign`` -1 the difference."""
        if not other:
            return self
        if not self and sign == 1:
            return other
        models, tools = dict(self.models), dict(self.tools)
        for name, one in other.models.items():
            key = _within(models, name)
            models[key] = models.get(key, _NOTHING).plus(one, sign)
        for name, count in other.tools.items():
            key = _within(tools, name)
            tools[key] = tools.get(key, 0) + sign * count
        return Usage(
            self.calls + sign * other.calls,
            self.input_tokens + sign * other.input_tokens,
            self.output_tokens + sign * other.output_tokens,
            {name: one for name, one in models.items() if one != _NOTHING},
            {name: count for name, count in tools.items() if count},
        )

    @property
    def of_models(self) -> Usage:
        """The part of it that models used."""
        return Usage(self.calls, self.input_tokens, self.output_tokens, self.models)

    @property
    def of_tools(self) -> Usage:
        """The part of it that is calls of tools."""
        return Usage(tools=self.tools)


NO_USAGE: Final = Usage()


def sum_of(parts: Iterable[Usage]) -> Usage:
    """Add up."""
    total = NO_USAGE
    for one in parts:
        total = total.plus(one)
    return total


def _within(names: Mapping[str, Any], name: str) -> str:
    """Return the name to count under, so that there are not too many."""
    return name if name in names or len(names) < _MOST_NAMES else OTHERS


def usage_of(attributes: Mapping[str, Any]) -> Usage:
    """Return what a span tells by its attributes; nothing for one of our own."""
    if _ALL_NAMES.isdisjoint(attributes) or ATTR.WORKFLOW_ID in attributes:
        return NO_USAGE
    given, made = (_tokens(attributes, what) for what in ("input_tokens", "output_tokens"))
    tool = _tool(attributes)
    tools = {} if tool is None else {tool: 1}
    if given is None and made is None:
        return Usage(tools=tools)
    used = ModelUsage(1, given or 0, made or 0)
    model = _text(attributes, "model") or UNKNOWN
    return Usage(1, used.input_tokens, used.output_tokens, {model: used}, tools)


def usage_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return those attributes from which :func:`usage_of` tells what a span used, names cut."""
    return {
        name: value[:_LONG_NAME] if isinstance(value, str) else value
        for name, value in attributes.items()
        if name in _ALL_NAMES and isinstance(value, str | int)
    }


def _tokens(attributes: Mapping[str, Any], what: str) -> int | None:
    for name in ATTRIBUTES[what]:
        found = attributes.get(name)
        if type(found) is int and found >= 0:
            return found
    return None


def _text(attributes: Mapping[str, Any], what: str) -> str | None:
    for name in ATTRIBUTES[what]:
        found = attributes.get(name)
        if isinstance(found, str) and found:
            return found[:_LONG_NAME]
    return None


def _tool(attributes: Mapping[str, Any]) -> str | None:
    found = _text(attributes, "tool")
    if found is None and _text(attributes, "kind") == "tool":
        return _text(attributes, "entity")
    return found


# -- which spans count


class Added(NamedTuple):
    """What a span changes.

    :ivar total: of all spans together
    :ivar place: id of the nearest span above it that has not come: a step's, or one that may come
    :ivar below: what is below ``place`` in addition
    """

    total: Usage
    place: str | None
    below: Usage


class _Seen(NamedTuple):
    """A span that has come.

    :ivar counted: what it used by itself, if that was counted
    :ivar is_open: it has begun, and what it used comes with its end
    :ivar calls_below: while it is open, calls of models came that are below it
    """

    parent: str | None
    counted: Usage = NO_USAGE
    is_open: bool = False
    calls_below: bool = False


class InnermostSpans:
    """Sums up spans that come one by one, in any order; usually inner ones come first.

    Memory is bounded: of very many spans that are open at once, or that come long after a span
    above them, some count although they repeat others.
    """

    def __init__(self) -> None:
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        self._below: OrderedDict[str, Usage] = OrderedDict()  # by a span that has not come
        self._outside: OrderedDict[str, None] = OrderedDict()

    def leave_out(self, span_id: str) -> None:
        """Count neither this span nor those above it: they enclose the whole run."""
        _keep(self._outside, span_id, None)

    def begin(self, span_id: str, parent: str | None) -> None:
        """Note a span that has begun, and may never end: its process may be killed."""
        if not any(span_id in known for known in (self._seen, self._below, self._outside)):
            _keep(self._seen, span_id, _Seen(parent, is_open=True))

    def add(self, span_id: str, parent: str | None, own: Usage) -> Added | None:
        """Add a span that has ended; ``None`` if it changes nothing.

        :param own: what its attributes tell
        """
        before = self._seen.get(span_id)
        if before is not None and not before.is_open:
            return None  # it was captured twice
        if span_id in self._outside:
            if parent is not None:
                self.leave_out(parent)
            return None
        below = self._below.pop(span_id, NO_USAGE)
        if below.calls or (before is not None and before.calls_below):
            own = own.of_tools
        _keep(self._seen, span_id, _Seen(parent, own.of_models))
        if not own and not below:
            return None
        return self._carry(own, below.plus(own), parent)

    def _carry(self, total: Usage, below: Usage, place: str | None) -> Added:
        """Carry to the spans above, which do not count beside it."""
        has_calls = below.calls > 0
        for _ in range(_MOST_PARENTS):
            above = None if place is None else self._seen.get(place)
            if place is None or above is None:
                break
            if has_calls and (above.counted or above.is_open):
                total, below = total.plus(above.counted, -1), below.plus(above.counted, -1)
                self._seen[place] = _Seen(above.parent, is_open=above.is_open, calls_below=True)
            place = above.parent
        return Added(total, place, below)

    def hold(self, place: str, below: Usage) -> None:
        """Note what is below a span that may come."""
        _keep(self._below, place, self._below.get(place, NO_USAGE).plus(below))


def _keep(entries: OrderedDict[str, Any], key: str, value: Any) -> None:
    """Enter a value, and drop the oldest one if there are too many."""
    entries[key] = value
    if len(entries) > _MOST_SPANS:
        entries.popitem(last=False)  # of a plain dictionary, finding the first takes long


class Owner(Protocol):
    """What spans belong to: an attempt, or steps that were summed up."""

    usage: Usage


class UsageFold:
    """Finds for each captured span the attempt that it belongs to.

    :ivar started: whether a captured span has come: without one, attempts need not be known
    """

    def __init__(self) -> None:
        self.started = False
        self._spans = InnermostSpans()
        self._owners: dict[str, Owner] = {}
        self._former: OrderedDict[str, Owner] = OrderedDict()

    def leave_out(self, span_id: str) -> None:
        """Count neither this span nor those above it: they enclose the whole run."""
        self._spans.leave_out(span_id)

    def begin(self, span_id: str | None, owner: Owner) -> None:
        """Note the span of an attempt."""
        if span_id is not None:
            self._owners[span_id] = owner

    def hand_over(self, span_ids: Iterable[str | None], owner: Owner) -> None:
        """Let what comes late for attempts that are no longer kept belong to ``owner``."""
        for span_id in span_ids:
            if span_id is not None:
                self._owners.pop(span_id, None)
                _keep(self._former, span_id, owner)

    def feed(self, event: Event) -> Usage:
        """Add a captured span, or its start; return what it adds for the run."""
        attributes = attributes_of(event)
        if event.span_id is UNSET or ATTR.WORKFLOW_ID in attributes:  # our own, written late
            return NO_USAGE
        parent = None if event.parent_span_id is UNSET else event.parent_span_id
        if event.event_type == "span_start":
            self._spans.begin(event.span_id, parent)
            return NO_USAGE
        added = self._spans.add(event.span_id, parent, usage_of(attributes))
        if added is None:
            return NO_USAGE
        if added.place is not None:
            self._give(added.place, added.below)
        return added.total

    def _give(self, place: str, below: Usage) -> None:
        owner = self._owners.get(place) or self._former.get(place)
        if owner is None:
            self._spans.hold(place, below)
        else:
            owner.usage = owner.usage.plus(below)


def attributes_of(event: Event) -> Mapping[str, Any]:
    """Return the attributes of a captured span; of a large one, those that tell what it used."""
    if event.attributes is not UNSET:
        return event.attributes
    found = None if event.otel is UNSET else event.otel.get("attributes")
    return found if isinstance(found, dict) else {}
