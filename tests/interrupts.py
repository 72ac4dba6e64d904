"""Exceptions at every place of this package where the interpreter can deliver Ctrl-C.

CPython handles signals where a function begins, where a loop begins again, and just after a call of
something in C: these places are found by running a program and counting them, so that the tests
know of no place in the code. Python 3.11 reports neither loops nor calls of classes in C.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from threading import get_ident
from types import CodeType, FrameType, TracebackType
from typing import Any, Final, Self

import tapps_otel

_OURS: Final = str(Path(tapps_otel.__file__).parent) + "/"
_FILES: Final = (_OURS, contextlib.__file__)
_TOOL: Final = 4  # of `sys.monitoring`: a number that is for nobody in particular
_AFTER_AWAIT: Final = 2  # in the argument of RESUME: the first value at which nothing is delivered


class Interrupts:
    """Inside its block, raises an exception at chosen places of this thread, and counts places.

    :param at: numbers of places, from 1; the first exception moves all that follow it. More than
        one works with Python 3.12 and later
    :ivar places: number of places so far
    :ivar raised: where exceptions were raised
    """

    def __init__(self, *at: int, error: type[BaseException] = KeyboardInterrupt) -> None:
        self._at, self._error = frozenset(at), error
        self._last = max(at, default=0)
        self._thread = get_ident()
        self.places = 0
        self.raised: list[str] = []

    def __enter__(self) -> Self:
        if sys.version_info >= (3, 12):
            self._monitor()
        else:
            sys.setprofile(self._profile)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if sys.version_info >= (3, 12):
            if sys.monitoring.get_tool(_TOOL):
                sys.monitoring.set_events(_TOOL, 0)
                sys.monitoring.free_tool_id(_TOOL)
        else:
            sys.setprofile(None)

    def _pass(self, code: CodeType, line: int | None) -> None:
        if get_ident() != self._thread:  # signals are handled in the main thread alone
            return
        self.places += 1
        if self.places in self._at:
            if self.places == self._last and sys.version_info >= (3, 12):
                self._stop()  # otherwise the exception does that
            self.raised.append(f"{Path(code.co_filename).name}:{line} {code.co_name}")
            raise self._error

    # -- Python 3.11

    def _profile(self, frame: FrameType, kind: str, _: object) -> None:
        code = frame.f_code
        if kind not in {"call", "c_return"} or not code.co_filename.startswith(_FILES):
            return
        if kind == "c_return" or _delivers(code, frame.f_lasti):
            self._pass(code, frame.f_lineno)

    # -- Python 3.12 and later

    if sys.version_info >= (3, 12):

        def _monitor(self) -> None:
            monitoring = sys.monitoring
            events = monitoring.events
            monitoring.use_tool_id(_TOOL, "interrupts")
            for event, callback in (
                (events.PY_START, self._begin),
                (events.PY_RESUME, self._begin),
                (events.C_RETURN, self._returned),
                (events.JUMP, self._jump),
            ):
                monitoring.register_callback(_TOOL, event, callback)
            monitoring.set_events(
                _TOOL, events.PY_START | events.PY_RESUME | events.CALL | events.JUMP
            )

        def _begin(self, code: CodeType, offset: int) -> Any:
            if not code.co_filename.startswith(_FILES):
                return sys.monitoring.DISABLE
            if _delivers(code, offset):
                self._pass(code, sys._getframe(1).f_lineno)
            return None

        def _returned(self, code: CodeType, offset: int, callable_: object, first: object) -> None:
            if code.co_filename.startswith(_FILES):
                self._pass(code, sys._getframe(1).f_lineno)

        def _jump(self, code: CodeType, offset: int, target: int) -> Any:
            if not code.co_filename.startswith(_FILES) or target > offset:
                return sys.monitoring.DISABLE
            self._pass(code, sys._getframe(1).f_lineno)
            return None


def _delivers(code: CodeType, offset: int) -> bool:
    """Whether signals are handled at this RESUME: not where an ``await`` continues."""
    return code.co_code[offset + 1] & 3 < _AFTER_AWAIT
