"""Checks of this machine: what a log needs of it is tried out."""

from __future__ import annotations

import os
import platform
import statistics
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from tapps_otel import clock, settings
from tapps_otel.errors import RunBusyError, SendError, SettingsError, StoreError, TappsError
from tapps_otel.log import files as _files
from tapps_otel.log.encrypted import CodecFailedError, encrypt_data
from tapps_otel.log.home import home_of
from tapps_otel.log.lease import Lease
from tapps_otel.log.run_files import list_files
from tapps_otel.log.staging import abandoned
from tapps_otel.log.store import Store
from tapps_otel.masking import public_url
from tapps_otel.names import NO_RUN
from tapps_otel.otel.environment import traces_wanted
from tapps_otel.settings_model import Settings, shown
from tapps_otel.settings_types import DEFAULT_LOG_DIR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tapps_otel.log.run_files import RunFiles

__all__ = ["Finding", "examine", "mounted_type"]

State = Literal["ok", "warn", "fail", "info"]

_TRIAL: Final = b"a value"
_PREFIX: Final = "TAPPS_OTEL_"
_REMOTE: Final = frozenset(
    {"9p", "afs", "ceph", "cifs", "drvfs", "glusterfs", "lustre", "nfs", "nfs4", "smb3", "smbfs"}
    | {"prl_fs", "vboxsf"}  # folders that a virtual machine shares with its host
)
_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs", "devtmpfs"})
_SYNCS: Final = 25
_SLOW_US: Final = 20_000  # microseconds: a spinning disk takes about ten thousand
_LITTLE: Final = 1 << 30  # bytes
_LARGE: Final = 1 << 30  # bytes of one run: it takes a minute to read
_MUCH: Final = 50 << 30  # bytes of all runs
_PAST_DAYS: Final = 7  # whose logs tell how fast they grow
_AHEAD_DAYS: Final = 14
_DAY_NS: Final = 86_400 * 1_000_000_000
_FREE: Final = "`tapps-otel prune --older-than 90d --dry-run` lists what can be removed"
_NAME_ANOTHER: Final = "name another (--log-dir, TAPPS_OTEL_LOG_DIR)"
_ALL_SAMPLED: Final = frozenset({"always_on", "parentbased_always_on"})
_WAIT: Final = 1.0  # seconds for a collector to accept a connection
_START: Final = "`docker compose up -d --wait` or `collector/stack.sh up` starts this project's"
_LIST: Final = "`tapps-otel docs settings` lists the settings"
_PACKAGES: Final = (
    "tapps_otel",
    "opentelemetry-api",
    "opentelemetry-sdk",
    "opentelemetry-exporter-otlp-proto-grpc",
    "opentelemetry-exporter-otlp-proto-http",
    "pydantic",
    "msgspec",
)


@dataclass(frozen=True, slots=True)
class Finding:
    """The finding of one check.

    :ivar state: ``fail``: runs cannot be logged, or not with all guarantees; ``warn``: look at it
    :ivar hint: what to do
    :ivar data: the finding for programs
    """

    name: str
    state: State
    text: str
    hint: str | None = None
    data: dict[str, Any] = field(default_factory=dict)


def examine(log_dir: Path | str | None = None) -> Iterator[Finding]:
    """Yield the findings of all checks. What a check creates is removed again."""
    found = _settings()
    yield from found
    bad_settings = any(one.state == "fail" for one in found)
    chosen = log_dir or (DEFAULT_LOG_DIR if bad_settings else settings.current().log_dir)
    folder = Path(chosen).absolute()
    yield from _folder(folder)
    yield from _store()
    yield from _collector()
    yield from _sampler()
    yield from _jaeger()
    yield _versions()


# -- settings


def _settings() -> list[Finding]:
    try:
        current = settings.current()
    except SettingsError as error:
        return [Finding("settings", "fail", str(error))]
    known = {f"{_PREFIX}{name.upper()}" for name in Settings.model_fields}
    given = sorted(name for name in os.environ if name.upper().startswith(_PREFIX))
    unknown = [name for name in given if name not in known]
    changed = {
        name: shown(name, getattr(current, name))
        for name, one in Settings.model_fields.items()
        if getattr(current, name) != one.default
    }
    text = (
        ", ".join(f"{name}={value}" for name, value in changed.items()) or "all have their defaults"
    )
    data = {"changed": {name: str(value) for name, value in changed.items()}, "unknown": unknown}
    found = [Finding("settings", "ok", text, data=data)]
    found.append(_encryption(current))
    if not current.enabled:
        hint = "unset TAPPS_OTEL_ENABLED, or configure(enabled=True)"
        found.append(Finding("switch", "warn", "off: no run is logged", hint))
    if unknown:
        text = f"not a setting: {', '.join(unknown)}"
        meant = {one for name in unknown for one in get_close_matches(name, known, 1)}
        hint = f"did you mean {' or '.join(sorted(meant))}?" if meant else _LIST
        found.append(Finding("environment", "warn", text, hint))
    return found


def _encryption(current: Settings) -> Finding:
    """Encrypt and decrypt something with the codec, if there is one."""
    codec = current.codec
    if codec is None:
        return Finding("encryption", "info", "off: inputs and results are stored as they are")
    try:
        key_id, encrypted = encrypt_data(_TRIAL, codec, b"doctor")
        works = codec.decode(encrypted, b"doctor", key_id) == _TRIAL != encrypted
    except CodecFailedError as error:
        return Finding("encryption", "fail", str(error))
    except Exception as error:  # noqa: BLE001 - whatever a user's codec raises
        return Finding("encryption", "fail", f"the codec failed: {type(error).__name__}: {error}")
    if not works:
        return Finding("encryption", "fail", "the codec does not return what it was given")
    return Finding("encryption", "ok", f"with key {key_id}", data={"key": key_id})


# -- the folder and its disk


def _folder(folder: Path) -> Iterator[Finding]:
    files = _files.system()
    there = taken = folder
    while not files.is_folder(there) and there != there.parent:
        there, taken = there.parent, there
    text = f"{folder}" if there == folder else f"{folder} (the first run creates it in {there})"
    data = {"path": str(folder)}
    place = Finding("log folder", "ok", text, data=data)
    if there != folder and files.exists(taken):
        text = f"{folder}: {taken} is not a folder"
        place = Finding("log folder", "fail", text, _NAME_ANOTHER, data)
    probe = there / f".tapps-otel-doctor-{os.getpid()}"
    try:
        descriptor = files.open_append(probe, create=True)
    except (OSError, TappsError) as error:
        hint = f"make it writable, or {_NAME_ANOTHER}"
        yield Finding("log folder", "fail", f"{text}: {error}", hint, data)
        yield _file_system(there)
        return
    try:
        yield place
        yield _file_system(there)
        logs: dict[str, RunFiles] = {}
        listed = _guarded("logs", lambda: _logs(folder, logs))
        yield _guarded("free space", lambda: _space(files, there, logs))
        yield listed
        yield from _left_by_unpack(folder)
        yield _guarded("sync", lambda: _sync_cost(files, descriptor))
        yield _guarded("lock", lambda: _lock(probe))
    finally:
        files.close(descriptor)
        if files.is_file(probe):  # a lease that was released has removed it
            files.remove(probe)


def _guarded(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except OSError as error:
        return Finding(name, "fail", f"does not work: {error.strerror or error}")
    except TappsError as error:
        return Finding(name, "fail", str(error))


def _file_system(folder: Path) -> Finding:
    """Report the type of the mounted file system, which only Linux tells."""
    files = _files.system()
    table = files.read_text("/proc/self/mountinfo")
    kind = None if table is None else mounted_type(table, str(folder.resolve()))
    if kind is None:
        return Finding("file system", "info", "its type is unknown on this system")
    data = {"type": kind}
    if kind in _REMOTE or kind.startswith("fuse"):
        text = f"{kind}: locks and appends are not reliable on it, a log may be damaged"
        hint = "keep the logs on a local disk (--log-dir, TAPPS_OTEL_LOG_DIR)"
        return Finding("file system", "warn", text, hint, data)
    if kind in _IN_MEMORY:
        text = f"{kind}: it is in memory, and lost at a restart"
        return Finding("file system", "warn", text, "keep logs that matter on a disk", data)
    return Finding("file system", "ok", kind, data=data)


def mounted_type(table: str, path: str) -> str | None:
    """Find the type of the file system that has ``path``, in the lines of ``mountinfo``."""
    best, kind = "", None
    for line in table.splitlines():
        before, dash, after = line.partition(" - ")
        fields = before.split(" ")
        if not dash or len(fields) < 5:
            continue
        point = _unescape(fields[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):  # a later mount hides an earlier one
            best, kind = point, after.split(" ", 1)[0]
    return kind


def _unescape(text: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text


def _space(files: _files.Files, folder: Path, logs: dict[str, RunFiles]) -> Finding:
    """Report the free space, and whether it lasts at the pace at which logs were written."""
    free = files.free_bytes(folder)
    since_ns = clock.time_ns() - _PAST_DAYS * _DAY_NS
    written = sum(one.size for one in logs.values() if one.changed_ns >= since_ns)
    days = free * _PAST_DAYS // written if written else None
    data = {"free_bytes": free, "lasts_days": days}
    text = _size(free)
    if free < _LITTLE:
        return Finding("free space", "warn", text, f"a full disk stops the log: {_FREE}", data)
    if days is not None and days < _AHEAD_DAYS:
        grown = f"logs grew by at most {_size(written)} in the last {_PAST_DAYS} days"
        text += f", which lasts {days} days: {grown}"
        return Finding("free space", "warn", text, _FREE, data)
    return Finding("free space", "ok", text, data=data)


def _logs(folder: Path, logs: dict[str, RunFiles]) -> Finding:
    """Report the size of the runs' files, and a run that is too large to be looked at.

    :param logs: gets what is in the folder
    """
    logs.update(list_files(Store(folder)))
    total = sum(one.size for one in logs.values())
    largest = max(logs, key=lambda name: logs[name].size, default=None)
    most = 0 if largest is None else logs[largest].size
    runs = len(logs.keys() - {NO_RUN})
    data = {"runs": runs, "bytes": total, "largest": largest, "largest_bytes": most}
    text = f"{_size(total)} of {runs} runs"
    if most >= _LARGE:
        text += f"; {largest} alone has {_size(most)}"
        hint = "return less from steps, or a file's name; split the run into child runs"
        return Finding("logs", "warn", text, hint, data)
    if total >= _MUCH:
        return Finding("logs", "warn", text, _FREE, data)
    return Finding("logs", "ok", text, data=data)


def _left_by_unpack(folder: Path) -> Iterator[Finding]:
    """Report what a killed ``unpack`` left, if anything."""
    try:
        found = [one.name for one in abandoned(Store(folder))]
    except OSError:  # the check of the logs has told
        return
    if found:
        text = f"a killed `unpack` left {', '.join(found)}"
        yield Finding("unpack", "warn", text, "the next unpack or prune removes it")


def _size(number: int) -> str:
    if number < 1 << 30:
        return f"{number >> 20} MiB" if number >= 1 << 20 else f"{number >> 10} KiB"
    return f"{number / (1 << 30):.1f} GiB"


def _sync_cost(files: _files.Files, descriptor: int) -> Finding:
    line = b"x" * 489 + b"\n"  # as long as an event
    taken = []
    for _ in range(_SYNCS):
        begin = clock.monotonic_ns()
        files.write(descriptor, line)
        files.sync(descriptor)
        taken.append((clock.monotonic_ns() - begin) / 1e3)
    cost = statistics.median(taken)
    text = f"{cost:.0f} us (median of {_SYNCS}): the least that a completed step costs"
    data = {"median_us": round(cost, 1)}
    if cost > _SLOW_US:
        hint = "TAPPS_OTEL_DURABILITY=os does not sync: logs survive kill -9, but not a power cut"
        return Finding("sync", "warn", text, hint, data)
    return Finding("sync", "ok", text, data=data)


def _lock(probe: Path) -> Finding:
    first = Lease(probe, "doctor")
    try:
        Lease(probe, "doctor").release()
    except RunBusyError:
        return Finding("lock", "ok", "works: a second holder is refused", data={"works": True})
    finally:
        first.release()
    text = "two processes can hold it: a run could be executed twice at once"
    return Finding("lock", "fail", text, "keep the logs on a local disk", {"works": False})


# -- OpenTelemetry


def _store() -> Iterator[Finding]:
    """Report whether the store of runs can be used, if there is one."""
    try:
        config = settings.current()
        home = home_of(config)
        if home is None or config.store is None:
            return
        home.holder(NO_RUN)  # any query tells
    except StoreError as error:
        hint = "runs do not start without it; TAPPS_OTEL_STORE names it"
        yield Finding("store", "fail", str(error), hint, {"reachable": False})
    except SettingsError:  # reported already
        return
    else:
        yield Finding("store", "ok", f"{public_url(config.store)} can be used")


def _collector() -> Iterator[Finding]:
    try:
        config = settings.current()
    except SettingsError:  # reported already
        return
    if not traces_wanted(config):
        text = "not set: no spans are sent"
        hint = f"OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4317 sends them; {_START}"
        yield Finding("collector", "info", text, hint, {"endpoint": None})
        return
    from tapps_otel.otel.transport.client import connect
    from tapps_otel.otel.transport.destination import destination

    try:
        asked = os.environ.get("OTEL_TRACES_EXPORTER", "")
        found = destination(config, local="otlp" in asked)
        if found is None:
            text = "spans are exported, but to no OTLP endpoint"
            yield Finding("collector", "info", text, data={"endpoint": None})
            return
        data = {"endpoint": found.address, "protocol": found.protocol, "reachable": True}
        client = connect(found)
    except SettingsError as error:
        yield Finding("collector", "fail", str(error), data={"endpoint": None})
        return
    try:
        client.send(b"", patience=_WAIT)  # an empty request: valid, without effect
    except SendError as error:
        text = f"{found.address} does not accept spans by {found.protocol}: {error.reason}"
        hint = f"runs work without it, and `tapps-otel send` sends their spans later. {_START}"
        yield Finding("collector", "warn", text, hint, {**data, "reachable": False})
    else:
        text = f"{found.address} accepts spans by {found.protocol}"
        yield Finding("collector", "ok", text, data=data)
    finally:
        client.close()


def _sampler() -> Iterator[Finding]:
    """Report a sampler that leaves spans out: these are not captured, and open no run."""
    name = os.environ.get("OTEL_TRACES_SAMPLER", "").strip().lower()
    if name and name not in _ALL_SAMPLED:
        text = (
            f"{name}: runs are logged, but not every span of a library, and not every run of spans"
        )
        hint = "unset OTEL_TRACES_SAMPLER, or OTEL_TRACES_SAMPLER=always_on"
        yield Finding("sampler", "warn", text, hint, {"sampler": name})


def _jaeger() -> Iterator[Finding]:
    from tapps_otel.otel.transport import jaeger

    try:
        given = settings.current().jaeger_url
    except SettingsError:  # reported already
        return
    url = (given or jaeger.STACK_URL).rstrip("/")
    problem = jaeger.problem(url)
    data = {"url": url, "reachable": problem is None}
    if problem is None:
        yield Finding(
            "jaeger", "ok", f"{url} answers", "`tapps-otel open RUN` opens a run's trace", data
        )
        return
    hint = f"{_START}; TAPPS_OTEL_JAEGER_URL names another"
    yield Finding("jaeger", "warn" if given else "info", f"{url}: {problem}", hint, data)


# -- versions


def _versions() -> Finding:
    found = {"python": platform.python_version(), "system": platform.platform()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    shown = ("python", "tapps_otel", "opentelemetry-sdk")
    text = ", ".join(f"{name} {found[name]}" for name in shown)
    return Finding("versions", "info", text, data=found)
