"""What a run or a step used, in words: tokens of models, and calls of tools. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tapps_otel.report.text import counted, excerpt, few

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapps_otel.past.usage import ModelUsage, Usage
    from tapps_otel.report.lines import Fact

__all__ = ["tokens_text", "usage_facts", "usage_text"]

_NAME: Final = 80  # columns
_MOST_NAMES: Final = 6


def usage_facts(usage: Usage) -> Iterator[Fact]:
    """Yield what was used, if anything is known of it."""
    if usage:
        yield "used", usage_text(usage), ""


def usage_text(usage: Usage) -> str:
    """Describe what was used, by model and tool; those that were used most come first."""
    parts = []
    if usage.calls:
        models = sorted(usage.models.items(), key=lambda one: -_tokens(one[1]))
        by_model = few([f"{excerpt(name, _NAME)} {one.calls}" for name, one in models], _MOST_NAMES)
        parts.append(f"{tokens_text(usage)} in {counted(usage.calls, 'model call')} ({by_model})")
    if usage.tools:
        tools = sorted(usage.tools.items(), key=lambda one: -one[1])
        called = few([f"{excerpt(name, _NAME)} {count}" for name, count in tools], _MOST_NAMES)
        parts.append(f"{counted(sum(usage.tools.values()), 'tool call')} ({called})")
    return "; ".join(parts)


def tokens_text(usage: Usage) -> str:
    """Return the numbers of tokens: ``1200 + 80 tokens`` for those given and those made."""
    return f"{usage.input_tokens} + {usage.output_tokens} tokens"


def _tokens(used: ModelUsage) -> int:
    return used.input_tokens + used.output_tokens
