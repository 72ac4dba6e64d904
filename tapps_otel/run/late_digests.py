"""Digests of large files, which a thread computes after the step that made them has ended.

Neither the step nor the event loop waits for it, nor the process when it exits. A file is read in
blocks, one file at a time. The thread ends when there is nothing left to hash.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from tapps_otel.log.artifacts import digest_of

if TYPE_CHECKING:
    from tapps_otel.log.artifacts import LargeFile

__all__ = ["hash_later"]

# Called with the digest, or with None and the reason why there is none.
Report = Callable[["LargeFile", str | None, str | None], None]


class _Hasher:
    """The files to hash, and the thread that does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: deque[tuple[LargeFile, Report]] = deque()
        self._works = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        """Forget the files, and the thread, which a forked child does not have."""
        self._lock, self._works = threading.Lock(), False
        self._files.clear()

    def add(self, file: LargeFile, report: Report) -> None:
        with self._lock:
            self._files.append((file, report))
            if self._works:
                return
            self._works = True
        try:
            threading.Thread(target=self._work, name="tapps-otel-digests", daemon=True).start()
        except RuntimeError as error:  # the process is exiting, or can have no more threads
            self._give_up(str(error))
        except BaseException:  # Ctrl-C, perhaps after the thread has started: two do no harm
            self._give_up("the computation was interrupted")
            raise

    def _give_up(self, problem: str) -> None:
        while (found := self._next()) is not None:
            file, report = found
            report(file, None, problem)

    def _work(self) -> None:
        while (found := self._next()) is not None:
            file, report = found
            try:
                sha = digest_of(file)
            except BaseException as error:  # noqa: BLE001 - no memory, too: the run's end waits
                report(file, None, str(error) or type(error).__name__)
            else:
                report(file, sha, None if sha else "it was changed before it was hashed")

    def _next(self) -> tuple[LargeFile, Report] | None:
        with self._lock:
            if self._files:
                return self._files.popleft()
            self._works = False
            return None


_HASHER = _Hasher()


def hash_later(file: LargeFile, report: Report) -> None:
    """Compute the digest of a file in a thread, and report it from there.

    :param report: must not raise
    """
    _HASHER.add(file, report)
