"""Settings: what ``configure()`` was given, else the environment, else the defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from tapps_otel.errors import SettingsError

__all__ = ["DEFAULT_LOG_DIR", "Alias", "Settings", "configure", "current"]

DEFAULT_LOG_DIR: Final = Path(".tapps-agents/workflow-state/events")
# Conventions whose names spans can have too, each in a version: they change from one to the next.
Alias = Literal["gen_ai/0.1", "gen_ai/1.41", "cicd/1.44"]


class Settings(BaseSettings):
    """Every setting, with its default. In the environment: ``TAPPS_OTEL_`` and the upper-case name.

    :ivar enabled: off, decorated functions are plain functions and nothing is written
    :ivar log_dir: folder of the logs; a relative one is under the working directory
    :ivar durability: ``commit`` syncs with every event that ends something, ``always`` with every
        event, ``os`` never
    :ivar on_log_failure: ``continue`` keeps up to ``buffer_events`` events in memory while the log
        cannot be written; ``stop`` raises before the step runs
    :ivar buffer_events: see ``on_log_failure``
    :ivar capture_inputs: write the inputs of steps into the log, not their digest alone
    :ivar executor_variables: write the variables of an instrumented executor with every finished
        step, so that it can go on without its own snapshots
    :ivar executor_state_from_log: let an instrumented executor's own loading of its last state
        fall back to the log, and take from it what is completed
    :ivar executor_bridge: let an instrumented executor's own event log be served by ours
    :ivar spans: make OpenTelemetry spans
    :ivar aliases: conventions whose attributes spans have too, as ``cicd/1.44``; in the environment
        with commas between them
    :ivar metrics: measure runs, steps and logs by OpenTelemetry metrics
    :ivar otlp_endpoint: send spans there, whatever the standard variables say: as
        ``http://collector:4317``
    :ivar otlp_protocol: ``grpc`` or ``http/protobuf``
    :ivar otlp_headers: sent with every request; in the environment a JSON object
    :ivar service_name: of this program in traces
    :ivar jaeger_url: where traces are looked at, as ``http://jaeger:16686`` or behind a path; links
        lead there. Else the Jaeger of this repository's stack, where it answers
    :ivar announce: what a trace shows before its end: ``workflow``, ``steps`` too, or ``off``
    :ivar shutdown_timeout: how long sending spans may delay the process's exit, seconds
    :ivar handle_sigterm: record SIGTERM as an interruption, also outside the command line
    """

    model_config = SettingsConfigDict(
        env_prefix="TAPPS_OTEL_", extra="forbid", frozen=True, env_ignore_empty=True
    )

    enabled: bool = True
    log_dir: Path = DEFAULT_LOG_DIR
    durability: Literal["commit", "always", "os"] = "commit"
    on_log_failure: Literal["continue", "stop"] = "continue"
    buffer_events: int = Field(default=10_000, ge=0)
    capture_inputs: bool = False
    executor_variables: bool = False
    executor_state_from_log: bool = False
    executor_bridge: bool = False
    spans: bool = True
    aliases: Annotated[tuple[Alias, ...], NoDecode] = ()
    metrics: bool = True
    otlp_endpoint: str | None = None
    otlp_protocol: Literal["grpc", "http/protobuf"] | None = None
    otlp_headers: dict[str, str] | None = None
    service_name: str | None = None
    # Printed as a link: nothing but what an address without user and query is made of.
    jaeger_url: str | None = Field(
        default=None, pattern=r"^https?://[A-Za-z0-9.\-\[\]:]+(/[A-Za-z0-9._~%/\-]*)?$"
    )
    announce: Literal["workflow", "steps", "off"] = "workflow"
    shutdown_timeout: float = Field(default=2.0, ge=0, allow_inf_nan=False)
    handle_sigterm: bool = False

    @field_validator("aliases", mode="before")
    @classmethod
    def _split(cls, given: object) -> object:
        if not isinstance(given, str):
            return given
        return [name.strip() for name in given.split(",") if name.strip()]


_given: dict[str, Any] = {}
_current: Settings | None = None


def configure(**given: Any) -> Settings:
    """Set what is given, for runs that begin from now on; arguments win over the environment.

    :raises SettingsError: naming the setting and what it may be; nothing is changed then
    """
    global _given, _current  # noqa: PLW0603 - a process has one configuration
    _current = _make({**_given, **given})
    _given = {**_given, **given}
    return _current


def current() -> Settings:
    """What is in force.

    :raises SettingsError: the environment holds a value that cannot be
    """
    global _current  # noqa: PLW0603 - read once, at the first run
    if _current is None:
        _current = _make(_given)
    return _current


def _make(given: dict[str, Any]) -> Settings:
    try:
        return Settings(**given)
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None


def _explain(error: ValidationError) -> str:
    parts = []
    for one in error.errors():
        name = ".".join(str(part) for part in one["loc"])
        parts.append(
            f"setting {name!r} ({_variable(one['loc'])} in the environment): {one['msg']}, "
            f"not {one['input']!r:.100}"
        )
    return "; ".join(parts)


def _variable(place: tuple[int | str, ...]) -> str:
    """The variable of a setting, whatever part of its value is meant."""
    return f"TAPPS_OTEL_{str(place[0]).upper()}"
