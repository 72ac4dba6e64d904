"""All settings, where they come from, and what is wrong with one of them.

Apart from :mod:`~tapps_otel.settings`, because it imports pydantic, which takes as long as all of
``from tapps_otel import step, workflow``: a program pays for it when it starts a run.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from tapps_otel.encryption import AesGcmCodec, Codec, key_id_of, parse_keys
from tapps_otel.errors import SettingsError
from tapps_otel.masking import MASK, public_url
from tapps_otel.settings_types import (
    DEFAULT_LOG_DIR,
    Alias,
    Announce,
    Durability,
    OnLogFailure,
    OtlpProtocol,
    Redaction,
    SpanFilter,
)

__all__ = ["Settings", "combined_with_environment", "shown"]

_PREFIX: Final = "TAPPS_OTEL_"  # of variables in the environment
_STORE: Final = "store"
_ADDRESSES: Final = frozenset({"otlp_endpoint", "jaeger_url", _STORE})
_HEADERS: Final = "otlp_headers"
_KEYS: Final = "encryption_keys"
_HIDDEN: Final = frozenset({_HEADERS, _KEYS, "codec"})


class Settings(BaseModel):
    """All settings with their defaults.

    In the environment, a setting is ``TAPPS_OTEL_`` and its name in upper case.

    :ivar enabled: if false, decorated functions are plain functions and nothing is written
    :ivar log_dir: folder of the logs; a relative path is resolved from the working directory
    :ivar trust: folders whose logs may be resumed and written although another user owns them, can
        write to them or has linked them; separated by colons in the environment, ``*`` for all
    :ivar durability: when the log is synced to disk: ``commit`` with every event that ends a step
        or the run, ``always`` with every event, ``os`` never (survives a killed process, not a
        power cut)
    :ivar on_log_failure: if the log cannot be written, ``continue`` keeps up to ``buffer_events``
        events in memory and retries, ``stop`` raises before the step runs; always ``stop`` with a
        ``store``
    :ivar buffer_events: maximum number of events to keep in memory; later ones are dropped
    :ivar store: PostgreSQL database that has the runs too, as ``postgresql://host/database``, so
        that another machine can resume them
    :ivar store_wait: how long a step waits for a store that cannot be reached or does not answer,
        seconds, more than 0
    :ivar capture_inputs: log the inputs of steps, not only their digest
    :ivar redact: replace secrets before they are logged or sent; ``Redaction(...)`` for rules of
        your own, a JSON object of its fields in the environment
    :ivar redact_results: do not store results in which redaction would replace something, unless
        they are encrypted
    :ivar span_filter: gets each span that is to be sent or exported, and returns the span to send
        in its place, or ``None`` for none; ``package.module:function`` in the environment
    :ivar encryption_keys: keys to encrypt inputs, results and details of errors with, by their ids;
        the first one encrypts, all of them decrypt. ``ID:KEY,ID:KEY`` in the environment
    :ivar codec: encrypts them in another way; takes precedence over ``encryption_keys``. Only by
        ``configure()``
    :ivar strict: fail a step that changes its arguments or its ``self``: on resume they would stay
        as they were; otherwise that is logged as a warning
    :ivar executor_variables: log the variables that each finished step of an instrumented executor
        has changed, so that it can resume without its own snapshots
    :ivar executor_state_from_log: let an instrumented executor that loads its last state take
        completed steps from the log, and the whole state if its snapshots cannot be read
    :ivar executor_bridge: replace an instrumented executor's own event log by this one
    :ivar langgraph_questions: log what LangGraph's interrupts ask, which may be any part of the
        state
    :ivar log_context: let the program's own log records, of ``logging``, have ``tapps_run``,
        ``tapps_step`` and ``tapps_attempt``
    :ivar spans: create OpenTelemetry spans
    :ivar aliases: conventions whose attributes spans get in addition, as ``cicd/1.44``; separated
        by commas in the environment
    :ivar metrics: record OpenTelemetry metrics of runs, steps and logs
    :ivar event_logs: send events as OpenTelemetry log records, too; by default if the standard
        variable ``OTEL_LOGS_EXPORTER`` names an exporter
    :ivar otlp_endpoint: collector to send spans to, as ``http://collector:4317``; takes precedence
        over the standard ``OTEL_*`` variables
    :ivar otlp_protocol: ``grpc`` or ``http/protobuf``
    :ivar otlp_headers: headers to send with every request; a JSON object in the environment
    :ivar service_name: name of this program in traces
    :ivar jaeger_url: Jaeger to link to, as ``http://jaeger:16686``; by default the one of this
        repository's stack, if it answers
    :ivar announce: what a trace shows before the run ends: ``workflow``, its ``steps`` too, or
        ``off`` for nothing
    :ivar span_starts: write spans of libraries as they start, too, where ``OTEL_TRACES_EXPORTER``
        names ``tapps_jsonl``
    :ivar shutdown_timeout: how long sending spans and metrics may delay the process's exit, seconds
    :ivar handle_sigterm: record SIGTERM as an interruption; the command line always does
    """

    # The validator is built once there is a value to check: it takes a tenth of a command's time.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    enabled: bool = True
    log_dir: Path = DEFAULT_LOG_DIR
    trust: tuple[str, ...] = ()
    durability: Durability = "commit"
    on_log_failure: OnLogFailure = "continue"
    buffer_events: int = Field(default=10_000, ge=0)
    store: str | None = None
    store_wait: float = Field(default=60.0, gt=0, allow_inf_nan=False)
    capture_inputs: bool = False
    redact: bool | Redaction = True
    redact_results: bool = False
    span_filter: SpanFilter | str | None = None
    encryption_keys: dict[str, bytes | str] | None = None
    codec: Codec | None = Field(default=None, validate_default=True)
    strict: bool = False
    executor_variables: bool = True
    executor_state_from_log: bool = False
    executor_bridge: bool = False
    langgraph_questions: bool = False
    log_context: bool = False
    spans: bool = True
    aliases: tuple[Alias, ...] = ()
    metrics: bool = True
    event_logs: bool | None = None
    otlp_endpoint: str | None = None
    otlp_protocol: OtlpProtocol | None = None
    otlp_headers: dict[str, str] | None = None
    service_name: str | None = None
    # It is printed as a link: only the characters of an address without user and query.
    jaeger_url: str | None = Field(
        default=None, pattern=r"^https?://[A-Za-z0-9.\-\[\]:]+(/[A-Za-z0-9._~%/\-]*)?$"
    )
    announce: Announce = "workflow"
    span_starts: bool = True
    shutdown_timeout: float = Field(default=2.0, ge=0, allow_inf_nan=False)
    handle_sigterm: bool = False

    @field_validator("aliases", mode="before")
    @classmethod
    def _split(cls, given: object) -> object:
        if not isinstance(given, str):
            return given
        return [name.strip() for name in given.split(",") if name.strip()]

    @field_validator(_STORE)
    @classmethod
    def _check_store(cls, given: str | None, info: ValidationInfo) -> str | None:
        if given is None:
            return None
        if not given.startswith(("postgresql://", "postgres://")):
            raise ValueError("give the address of a PostgreSQL database: postgresql://HOST/NAME")
        if info.data.get("on_log_failure") == "continue":  # it would run on after a takeover
            raise ValueError(
                "on_log_failure 'continue' does not go with it: two processes might "
                "execute one run. Leave that setting out, or set it to 'stop'"
            )
        return given

    @field_validator("span_filter")
    @classmethod
    def _check_path(cls, given: SpanFilter | str | None) -> SpanFilter | str | None:
        if isinstance(given, str) and not re.fullmatch(r"[\w.]+:[\w.]+", given):
            raise ValueError("give a function, or where it is: package.module:function")
        return given

    @field_validator("trust", mode="before")
    @classmethod
    def _split_paths(cls, given: object) -> object:
        return list(filter(None, given.split(os.pathsep))) if isinstance(given, str) else given

    @field_validator(_HEADERS, "redact", mode="before")
    @classmethod
    def _decode(cls, given: object) -> object:
        try:
            return json.loads(given) if isinstance(given, str) else given
        except (ValueError, RecursionError):
            return given  # it is checked as it is; the error of json would quote it

    @field_validator(_KEYS, mode="before")
    @classmethod
    def _check_keys(cls, given: object) -> object:
        keys = parse_keys(given) if isinstance(given, str) else given
        if isinstance(keys, Mapping):
            AesGcmCodec(keys)
        return keys

    @field_validator("codec", mode="plain")
    @classmethod
    def _choose_codec(cls, given: object, info: ValidationInfo) -> Codec | None:
        """The codec that was given, otherwise one of the keys that were."""
        if given is None:
            keys = info.data.get(_KEYS)
            return None if keys is None else AesGcmCodec(keys)
        if isinstance(given, Codec):
            key_id_of(given)
            return given
        raise ValueError("it has no key_id, encode() and decode(): give it to configure()")

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Yield what ``repr()`` shows."""
        for name, value in super().__repr_args__():
            yield name, shown(str(name), value)


def shown(name: str, value: object) -> object:
    """Return a setting's value as people may see it: without passwords, tokens and keys.

    :param name: of the setting; one that does not exist may be a misspelled one with a secret
    """
    if name == _HEADERS and isinstance(value, Mapping):
        return dict.fromkeys(value, MASK)
    if name == _STORE and isinstance(value, str) and "://" not in value:
        return MASK  # as libpq's `host=... password=...`
    if name in _ADDRESSES and isinstance(value, str):
        return public_url(value)
    is_open = name in Settings.model_fields.keys() - _ADDRESSES - _HIDDEN
    return value if is_open or value is None else MASK


def combined_with_environment(configured: Mapping[str, Any]) -> Settings:
    """Return the settings of ``configure()``, else of the environment, else the defaults.

    :raises SettingsError: names the invalid setting and its valid values
    """
    given = {**_from_environment(), **configured}
    if given.get(_STORE):
        given.setdefault("on_log_failure", "stop")
    if not given:
        return Settings.model_construct()
    try:
        return Settings(**given)
    except ValidationError as error:
        problem = _explain(error)
    # Outside of the handler: its error has the values, and would be the context of this one.
    raise SettingsError(problem)


def _from_environment() -> dict[str, str]:
    """Return the settings that the environment has.

    An empty variable counts as unset, except that of the keys: it would mean plain text, and may
    come from a file of keys that is missing.
    """
    fields = {f"{_PREFIX}{name.upper()}": name for name in Settings.model_fields}
    found = {
        fields[variable.upper()]: value
        for variable, value in os.environ.items()
        if variable.upper() in fields
    }
    return {name: value for name, value in found.items() if value or name == _KEYS}


def _explain(error: ValidationError) -> str:
    return "; ".join(_problem(one["loc"], one["msg"], one["input"]) for one in error.errors())


def _problem(place: tuple[int | str, ...], message: str, value: object) -> str:
    setting = str(place[0])
    if setting == _HEADERS:  # of the rest of the place, a part may be a secret given as a name
        place, message = place[:1], f'{message}; give {{"name": "value"}}, JSON in the environment'
    elif setting == _KEYS:
        place = place[:1]
    message = message.removeprefix("Value error, ")  # pydantic's, before what our checks say
    got = shown(setting, value)
    text = f"setting {'.'.join(map(str, place))!r} ({_PREFIX}{setting.upper()} in the environment)"
    return f"{text}: {message}" + ("" if got == MASK else f", got {got!r:.100}")
