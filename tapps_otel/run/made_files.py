"""The files that an attempt has made, and the digests of those that are hashed after its end."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from tapps_otel.log import files as _files
from tapps_otel.log.artifacts import NamedFile, summarize
from tapps_otel.past.fold import DIGEST
from tapps_otel.run import failures
from tapps_otel.run.late_digests import hash_later

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Iterator

    from tapps_otel.log.artifacts import Artifact, LargeFile
    from tapps_otel.log.event import Event
    from tapps_otel.run.scope import Recorder, Scope

__all__ = ["MadeFiles", "PendingDigest"]

_log = logging.getLogger("tapps_otel")


class MadeFiles:
    """The files of one attempt: what is known of them, and which are still to be hashed."""

    __slots__ = ("_large", "_summaries")

    def __init__(self) -> None:
        self._summaries: dict[str, dict[str, Any]] = {}
        self._large: dict[str, LargeFile] = {}

    def add(self, path: Path, media_type: str | None = None) -> dict[str, Any]:
        """Summarize a file, in place of what was known of it before.

        Its path is shown relative to the working directory, if it is below.
        """
        here = _files.system().working_directory()
        [summary] = self.summarize(
            [path if here is None else NamedFile(path, path.name, Path(here))]
        )
        if media_type is not None and "error" not in summary:
            summary["media_type"] = media_type
        if "sha256" in summary:
            self._large.pop(summary["path"], None)
        self._summaries[summary["path"]] = summary
        return summary

    def summarize(self, artifacts: Iterable[Artifact]) -> list[dict[str, Any]]:
        """Summarize files; large ones are hashed later."""
        large: list[LargeFile] = []
        summaries = summarize(artifacts, large)
        self._large.update((file.shown, file) for file in large)
        return summaries

    def put(self, event: Event) -> None:
        """Add what is known of the files to the event that ends the attempt."""
        if self._summaries:
            others = [] if event.artifacts is UNSET else event.artifacts
            event.artifacts = summarize([*self._summaries.values(), *others])

    @contextmanager
    def hashed_after(self, run: Recorder, root: Scope, step_id: str, number: int) -> Iterator[None]:
        """Compute the digests that are missing after this block, which ends the attempt.

        :param root: the scope of the workflow
        """
        large, self._large = self._large, {}
        pending = [PendingDigest(file, run, root, step_id, number) for file in large.values()]
        try:
            run.await_digests(pending)
            yield
            for one in pending:
                one.start()
        except BaseException:
            self._large = large  # the end may be repeated
            for one in pending:
                one.abandon()
            raise


class PendingDigest:
    """A digest that is computed. To the scope of the workflow it is an attempt that is open inside.

    So the run's end waits for it, unless that is interrupted.
    """

    thread = -1  # none that could call a step
    by_hand = False
    has_started = True

    def __init__(
        self, file: LargeFile, run: Recorder, root: Scope, step_id: str, number: int
    ) -> None:
        self.task: asyncio.Task[Any] | None = None
        self._file, self._run, self._root = file, run, root
        self._step_id, self._number = step_id, number
        self._given_up = False

    def start(self) -> None:
        """Compute it in a thread."""
        hash_later(self._file, self._report)

    def _report(self, file: LargeFile, sha256: str | None, problem: str | None) -> None:
        found = {"sha256": sha256} if sha256 else {"reason": failures.cut(problem or "")}
        try:
            if not self._given_up:
                attributes = {"path": file.shown, **found}
                self._run.annotate_step(self._step_id, DIGEST, attributes, attempt=self._number)
        except Exception as error:  # noqa: BLE001 - this is called in a thread that is not awaited
            _log.warning("the digest of %s is not logged: %s", file.path, error)
        finally:
            self._root.release(self)

    def begin_end(self) -> bool:
        """Nothing is open inside."""
        return False

    def abandon(self, error: BaseException | None = None) -> None:  # noqa: ARG002 - as an attempt
        """Do without the digest."""
        self._given_up = True
        self._root.release(self)

    def abandon_after(self, error: BaseException | None, *, blocking: bool) -> None:  # noqa: ARG002
        """Do without the digest."""
        self.abandon(error)
