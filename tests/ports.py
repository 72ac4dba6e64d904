"""Ports for the servers that tests start.

A port that the system chooses is free only until it chooses it again, for another test or for the
near end of a connection: before the server listens, or while it restarts. The ports here are
below those that it chooses from, and each process has a block of them.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from itertools import cycle, islice
from pathlib import Path

_FIRST, _BLOCK = 10_000, 100
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_held: list[socket.socket] = []  # until this process ends


def free_ports(number: int) -> list[int]:
    """Return different ports that are free, those first that were returned longest ago."""
    found = list(islice(filter(_is_free, islice(_own_ports(), _BLOCK - 1)), number))
    assert len(found) == number, f"fewer than {number} ports of {_BLOCK} are free"
    return found


@cache
def _own_ports() -> Iterator[int]:
    """The ports of this process's block, in turn and without end.

    Who listens on the first port of a block has all of it.
    """
    for first in range(_FIRST, _first_chosen_by_system() - _BLOCK, _BLOCK):
        with suppress(OSError):
            _held.append(socket.create_server(("127.0.0.1", first)))
            return cycle(range(first + 1, first + _BLOCK))
    raise AssertionError("all blocks of ports are held by other processes")


def _is_free(port: int) -> bool:
    with socket.socket() as probe, suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False


def _first_chosen_by_system() -> int:
    first = int(_RANGE.read_text("ascii").split()[0]) if _RANGE.exists() else 49_152
    return max(first, 2 * _FIRST)  # a system that chooses from lower ones too is left with a risk
