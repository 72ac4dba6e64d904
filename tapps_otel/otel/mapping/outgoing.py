"""Spans as they leave this machine: without secrets, and as the setting ``span_filter`` says."""

from __future__ import annotations

import importlib
import sys
from functools import reduce
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.trace import ReadableSpan

from tapps_otel import settings
from tapps_otel.errors import SettingsError, SpanFilterError
from tapps_otel.otel import run_registry
from tapps_otel.otel.mapping.redacted import redacted
from tapps_otel.redact import rules_here

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapps_otel.otel.run_registry import KnownRun

__all__ = ["Outgoing"]


class Outgoing:
    """Prepares spans by the settings in force when it was made.

    In a worker, by those of the process that executes the run.

    :raises SettingsError: the filter cannot be imported, or is not a function
    """

    def __init__(self) -> None:
        config = settings.current()
        self._rules = rules_here(config)
        self._filter = _loaded(config.span_filter)

    def __call__(self, span: ReadableSpan) -> ReadableSpan | None:
        """Return a finished span as it may leave; ``None``: it stays here.

        :raises SpanFilterError: the filter failed
        :raises SettingsError: that of its run cannot be imported, or is not a function
        """
        run = _run_of(span)
        clean = redacted(span, self._rules if run is None or run.rules is None else run.rules)
        given = None if run is None else run.span_filter
        let_out = self._filter if given is None else _loaded(given)
        if let_out is None:
            return clean
        try:
            made = let_out(clean)
        except Exception as error:  # of the user's
            raise SpanFilterError(span.name, f"{type(error).__name__}: {error}") from error
        if made is not None and not isinstance(made, ReadableSpan):
            raise SpanFilterError(span.name, f"it returned a {type(made).__name__}")
        return made


def _run_of(span: ReadableSpan) -> KnownRun | None:
    if span.context is None:
        return None
    return run_registry.find(span.context.trace_id, at_ns=span.start_time or 0)


def _loaded(given: Callable[[Any], Any] | str | None) -> Callable[[Any], Any] | None:
    if not isinstance(given, str):
        return given
    try:
        found = _import(given)
    except Exception as error:
        msg = f"setting 'span_filter': cannot import {given!r}: {type(error).__name__}: {error}"
        raise SettingsError(msg) from error
    if not callable(found):
        raise SettingsError(f"setting 'span_filter': {given!r} is not a function")
    made: Callable[[Any], Any] = found
    return made


def _import(path: str) -> Any:
    module, _, name = path.partition(":")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0] or "" in sys.path:
            raise
        # As `python -m` finds it, but after what is installed.
        sys.path.append("")
        found = importlib.import_module(module)
    return reduce(getattr, name.split("."), found)
