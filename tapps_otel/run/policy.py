"""How a step is tried: retries, waits, timeouts, and what an interruption means. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from random import uniform
from typing import TYPE_CHECKING, Final, Literal

from tapps_otel.errors import (
    LogError,
    PlatformError,
    RunError,
    ValueNotStoredError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapps_otel.settings_types import Redaction

__all__ = ["Backoff", "OnDivergence", "OnInterrupted", "Policy"]

OnDivergence = Literal["fail", "rerun"]
OnInterrupted = Literal["rerun", "fail"]

# A retry cannot help against these, and a second try must not hide a refusal.
_FINAL: Final = (RunError, LogError, PlatformError, ValueNotStoredError)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits between tries: ``initial * factor ** n`` seconds, at most ``maximum``.

    :param initial: the first wait, seconds
    :param factor: each wait is this many times the one before
    :param maximum: the longest wait, seconds
    :param jitter: each wait is shortened by up to this share, at random, so that many runs which
        failed together do not retry together
    """

    initial: float = 1
    factor: float = 2
    maximum: float = 60
    jitter: float = 0.25

    def __post_init__(self) -> None:
        if min(self.initial, self.factor, self.maximum) < 0 or not 0 <= self.jitter <= 1:
            msg = f"{self}: waits and factor cannot be negative, jitter is between 0 and 1"
            raise ValueError(msg)

    def wait_ns(self, failures: int) -> int:
        """How long to wait after so many failures, ns."""
        try:
            seconds = min(self.maximum, self.initial * self.factor ** (failures - 1))
        except OverflowError:
            seconds = self.maximum
        return int(seconds * uniform(1 - self.jitter, 1) * 1e9)  # noqa: S311 - not a secret


@dataclass(frozen=True, slots=True)
class Policy:
    """The options of ``@step`` about retries, timeouts, interruptions and secrets.

    :ivar retries: tries after the first
    :ivar timeout: of one try, seconds; async steps only
    :ivar persist: whether the result is stored, so that the step need not run again
    :ivar max_interruptions: how often in a row it runs again after its process died
    :ivar redact: rules beyond those of the run, ``False`` for none; ``None`` for the run's alone
    :ivar redact_results: whether a result is not stored if redaction would alter it
    """

    retries: int = 0
    backoff: Backoff = Backoff()
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    timeout: float | None = None
    key: str | Callable[..., str] | None = None
    persist: bool = True
    on_interrupted: OnInterrupted = "rerun"
    max_interruptions: int = 3
    redact: bool | Redaction | None = None
    redact_results: bool = False

    def __post_init__(self) -> None:
        if self.retries < 0 or self.max_interruptions < 0:
            msg = "retries and max_interruptions cannot be negative"
            raise ValueError(msg)
        if self.timeout is not None and not self.timeout > 0:
            msg = f"timeout={self.timeout!r}: expected a positive number of seconds"
            raise ValueError(msg)
        try:
            issubclass(Exception, self.retry_on)
        except TypeError:
            msg = f"retry_on={self.retry_on!r}: expected a tuple of exception classes"
            raise TypeError(msg) from None
        if self.on_interrupted not in {"rerun", "fail"}:
            msg = f"on_interrupted={self.on_interrupted!r}: expected 'rerun' or 'fail'"
            raise ValueError(msg)

    def retry_in_ns(self, error: BaseException, failures: int) -> int | None:
        """How long to wait before the next try; ``None``: there is none."""
        if failures > self.retries or isinstance(error, _FINAL):
            return None
        return self.backoff.wait_ns(failures) if isinstance(error, self.retry_on) else None
