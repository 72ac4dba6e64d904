"""What settings may be: the keyword arguments of ``configure()``, and the types of their values."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypedDict

from tapps_otel.encryption import Codec  # noqa: TC001 - get_type_hints() resolves it
from tapps_otel.errors import SettingsError

__all__ = [
    "DEFAULT_LOG_DIR",
    "Alias",
    "Announce",
    "Durability",
    "OnLogFailure",
    "OtlpProtocol",
    "Redaction",
    "SettingsDict",
    "SpanFilter",
]

DEFAULT_LOG_DIR: Final = Path(".tapps-agents/workflow-state/events")
# Each convention with its version, because its attribute names change from one to the next.
Alias = Literal["gen_ai/0.1", "gen_ai/1.41", "cicd/1.44"]
Announce = Literal["workflow", "steps", "off"]
Durability = Literal["commit", "always", "os"]
OnLogFailure = Literal["continue", "stop"]
OtlpProtocol = Literal["grpc", "http/protobuf"]
SpanFilter = Callable[..., Any]  # of spans of the OpenTelemetry SDK, which is not imported here


@dataclass(frozen=True, slots=True)
class Redaction:
    """Rules of redaction, beyond the usual ones.

    :param keys: names whose values are secrets; ``card_number`` also stands for ``cardNumber`` and
        ``customer.card-number``
    :param patterns: regular expressions; what they match in a text is replaced
    :param hook: gets the name of a value and its text, and returns the text to keep
    :param usual: whether the names and forms of the usual secrets are redacted too
    :raises SettingsError: a pattern is not a regular expression
    """

    keys: Sequence[str] = ()
    patterns: Sequence[str] = ()
    hook: Callable[[str, str], str] | None = None
    usual: bool = True

    def __post_init__(self) -> None:
        for field in ("keys", "patterns"):
            given = getattr(self, field)
            if isinstance(given, str):
                raise SettingsError(f"Redaction({field}={given!r}): expected a list of strings")
            object.__setattr__(self, field, tuple(given))
        for pattern in self.patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise SettingsError(
                    f"Redaction(patterns=...): {pattern!r} is not a regular expression: {error}"
                ) from None


class SettingsDict(TypedDict, total=False):
    """The keyword arguments of ``configure()``: the fields of ``Settings``."""

    enabled: bool
    log_dir: Path | str
    trust: str | Sequence[str]
    durability: Durability
    on_log_failure: OnLogFailure
    buffer_events: int
    store: str | None
    store_wait: float
    capture_inputs: bool
    redact: bool | Redaction
    redact_results: bool
    span_filter: SpanFilter | str | None
    encryption_keys: Mapping[str, bytes | str] | str | None
    codec: Codec | None
    strict: bool
    executor_variables: bool
    executor_state_from_log: bool
    executor_bridge: bool
    langgraph_questions: bool
    log_context: bool
    spans: bool
    aliases: Alias | Sequence[Alias]
    metrics: bool
    event_logs: bool | None
    otlp_endpoint: str | None
    otlp_protocol: OtlpProtocol | None
    otlp_headers: Mapping[str, str] | None
    service_name: str | None
    jaeger_url: str | None
    announce: Announce
    span_starts: bool
    shutdown_timeout: float
    handle_sigterm: bool
