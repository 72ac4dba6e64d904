"""The disk's floors: an ``os.write`` of 1 KiB to a growing file, with a sync and without."""

from __future__ import annotations

from .common import Arguments, Floor, answer, arguments


def measure(args: Arguments) -> dict[str, float]:
    """Both floors, in turns."""
    synced, bare = Floor(args.folder), Floor(args.folder, synced=False)
    for i in range(args.n):
        synced.tick(i)
        bare.tick(i)
    return {"write_sync_us": synced.each_us, "write_us": bare.each_us}


if __name__ == "__main__":
    answer(**measure(arguments()))
