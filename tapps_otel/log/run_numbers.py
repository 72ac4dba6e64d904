"""The runs of one id: ``<id>``, ``<id>.2``, ``<id>.3``, and which is the next.

``<id>.runs`` holds the number of the last one, so that the next is found at once, however many
there are. That file is a hint: what counts is which logs exist. From a hint that is lost or too low
(after a power cut, or where processes started runs at once) the next free number is found by
doubling the distance, then halving it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from tapps_otel.log import files as _files
from tapps_otel.names import RESERVED, log_name

if TYPE_CHECKING:
    from tapps_otel.log.store import Store

__all__ = ["RunNumbers"]


class RunNumbers:
    """The numbers of the runs of an id.

    :param workflow_id: any text; the executor's own
    """

    def __init__(self, store: Store, workflow_id: str) -> None:
        self._store, self._id = store, workflow_id
        self._path = store.numbers_path(log_name(workflow_id))

    def id_of(self, number: int) -> str:
        """Return the id of the n-th run."""
        return self._id if number == 1 else f"{self._id}.{number}"

    def next(self, *, after: int = 0) -> int:
        """Return the number of the next run.

        :param after: a number that is known to be taken; later ones are returned
        :raises OSError: a log cannot be looked for
        """
        return self.last(after=after) + 1

    def last(self, *, after: int = 0) -> int:
        """Return the number of the last run; 0 if there is none.

        :param after: a number that is known to be taken; no lower one is returned
        :raises OSError: a log cannot be looked for
        """
        taken, distance = max(after, self._noted()), 1
        while self._is_taken(taken + distance):
            taken += distance
            distance *= 2
        free = taken + distance
        while free - taken > 1:
            middle = (taken + free) // 2
            if self._is_taken(middle):
                taken = middle
            else:
                free = middle
        return taken

    def _is_taken(self, number: int) -> bool:
        own_id = self.id_of(number)
        return own_id in RESERVED or self._store.has_log(log_name(own_id))

    def _noted(self) -> int:
        """Return the number in the file; 0 if it is missing or says none."""
        with suppress(OSError, ValueError), _files.system().open_read(self._path) as file:
            return max(0, int(file.read(20)))
        return 0

    def note(self, number: int) -> None:
        """Note that a run of this number begins. Failing to is no error: it is found without."""
        if number > 1:
            with suppress(OSError):
                _files.system().write_file(self._path, b"%d" % number, sync=False)
