from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from commands import LOGS, Cli
from tapps_otel.doctor import Finding, examine, mounted_type
from tapps_otel.log import files as _files
from tapps_otel.log.files import FaultyFiles
from tapps_otel.log.staging import staging
from tapps_otel.log.store import Store

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:5 / /proc rw - proc proc rw
40 22 0:40 / /home rw shared:7 master:1 - nfs4 server:/home rw
41 40 0:41 / /home/me/with\\040space rw - fuse.sshfs x rw
42 22 0:42 / /twice rw - ext4 /dev/sdb rw
43 22 0:43 / /twice rw - tmpfs tmpfs rw
not a line of a table
"""


def found(name: str, **options: Path) -> Finding:
    return next(one for one in examine(**options) if one.name == name)


def test_a_healthy_machine_has_no_problem(cli: Cli) -> None:
    done = cli("doctor")
    shown = json.loads(cli("doctor", "--json").out)

    assert done.code == 0
    assert "✓ lock" in done.out
    assert "· collector    not set: no spans are sent" in done.out
    assert shown["ok"]
    data = {one["name"]: one["data"] for one in shown["checks"]}
    assert data["sync"]["median_us"] > 0
    assert data["lock"]["works"]
    assert data["log folder"]["path"] == str(LOGS.absolute())
    assert data["collector"] == {"endpoint": None}
    assert data["versions"]["opentelemetry-sdk"]


@pytest.mark.parametrize(
    ("sampler", "states"),
    [("", []), ("parentbased_always_on", []), ("always_on", []), ("traceidratio", ["warn"])],
    ids=["default", "parentbased", "always_on", "ratio"],
)
def test_a_sampler_that_leaves_spans_out_is_reported(
    monkeypatch: pytest.MonkeyPatch, sampler: str, states: list[str]
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)

    assert [one.state for one in examine() if one.name == "sampler"] == states


def test_nothing_is_left_behind(cli: Cli, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    cli("doctor")

    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/var", "ext4"),
        ("/home", "nfs4"),
        ("/home/me", "nfs4"),
        ("/homes", "ext4"),
        ("/home/me/with space/logs", "fuse.sshfs"),
        ("/twice/x", "tmpfs"),
    ],
)
def test_the_file_system_is_that_of_the_innermost_mount(path: str, kind: str) -> None:
    assert mounted_type(MOUNTS, path) == kind


@pytest.mark.parametrize(
    ("kind", "state"),
    [("ext4", "ok"), ("nfs4", "warn"), ("cifs", "warn"), ("9p", "warn"), ("fuse.sshfs", "warn"),
     ("fuseblk", "warn"), ("tmpfs", "warn"), (None, "info")],
)  # fmt: skip
def test_unreliable_file_systems_get_a_warning(
    monkeypatch: pytest.MonkeyPatch, kind: str | None, state: str
) -> None:
    table = None if kind is None else f"1 0 8:1 / / rw - {kind} /dev/x rw\n"
    monkeypatch.setattr(_files.Files, "read_text", lambda self, path: table)

    assert found("file system").state == state


def test_a_folder_that_cannot_be_written_to_is_a_failure(cli: Cli) -> None:
    Path("file").touch()
    with _files.use(FaultyFiles("open_append")):
        done = cli("doctor")

    assert done.code == 1
    assert "✗ log folder" in done.out
    assert "(--log-dir, TAPPS_OTEL_LOG_DIR)" in done.out


@pytest.mark.parametrize(
    ("call", "name"), [("sync", "sync"), ("lock", "lock"), ("free_bytes", "free space")]
)
def test_a_failed_check_does_not_stop_the_others(tmp_path: Path, call: str, name: str) -> None:
    with _files.use(FaultyFiles(call)):
        states = {one.name: one.state for one in examine(tmp_path)}

    assert states[name] == "fail"
    assert {"settings", "log folder", "file system", "collector", "versions"} <= states.keys()
    assert list(tmp_path.glob(".tapps-otel-doctor*")) == []


def test_a_lock_that_two_can_hold_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_files.Files, "lock", lambda self, descriptor: True)

    assert found("lock", log_dir=tmp_path).state == "fail"


def test_slow_syncs_and_little_space_get_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_files.Files, "free_bytes", lambda self, folder: 1024)
    monkeypatch.setattr("tapps_otel.doctor._SLOW_US", 0)

    assert found("free space", log_dir=tmp_path).state == "warn"
    assert "TAPPS_OTEL_DURABILITY" in str(found("sync", log_dir=tmp_path).hint)


def test_changed_settings_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAPPS_OTEL_DURABILITY", "os")
    monkeypatch.setenv("TAPPS_OTEL_ENABLED", "0")

    assert found("settings").data["changed"] == {"durability": "os", "enabled": "False"}
    assert found("switch").state == "warn"


def test_a_variable_that_is_not_a_setting_gets_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TAPPS_OTEL_CI", raising=False)
    monkeypatch.setenv("TAPPS_OTEL_LOGDIR", "x")
    unknown = found("environment")

    assert unknown.text == "not a setting: TAPPS_OTEL_LOGDIR"
    assert unknown.hint == "did you mean TAPPS_OTEL_LOG_DIR?"


def test_an_invalid_setting_is_a_failure(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAPPS_OTEL_DURABILITY", "sometimes")
    done = cli("doctor")

    assert done.code == 1
    assert "TAPPS_OTEL_DURABILITY" in done.out
    assert cli("run", "flow.py:small").code == 2


def test_a_collector_that_does_not_answer_gets_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as bound:  # a port that refuses: bound, and nobody listens
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        gone = found("collector")

    assert (gone.state, gone.data["reachable"]) == ("warn", False)
    assert gone.text.startswith(f"127.0.0.1:{port} does not accept spans by grpc: ")


def test_exporters_without_an_endpoint_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")

    assert found("collector").state == "info"


def test_a_configured_jaeger_that_does_not_answer_gets_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as bound:  # a port that refuses: bound, and nobody listens
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        monkeypatch.setattr("tapps_otel.otel.transport.jaeger.STACK_URL", url)
        unset = found("jaeger")
        monkeypatch.setenv("TAPPS_OTEL_JAEGER_URL", url)
        monkeypatch.setattr("tapps_otel.settings._current", None)
        gone = found("jaeger")

    assert (unset.state, gone.state) == ("info", "warn")
    assert gone.text == f"{url}: nothing answers there"
    assert gone.data == {"url": url, "reachable": False}
    assert "collector/stack.sh up" in str(gone.hint)


def log_of(size: int) -> None:
    """Make a file of this size, which takes no room on the disk."""
    LOGS.mkdir(parents=True)
    with (LOGS / "r.jsonl").open("wb") as file:
        file.truncate(size)


class Free(_files.Files):
    """A disk with this much free space."""

    def __init__(self, free: int) -> None:
        self._free = free

    def free_bytes(self, folder: Path) -> int:
        return self._free


def test_a_disk_that_logs_will_fill_soon_is_warned_of() -> None:
    log_of(700 << 20)
    with _files.use(Free(1200 << 20)):
        soon = found("free space")
    with _files.use(Free(1500 << 20)):
        later = found("free space")

    assert (soon.state, soon.data["lasts_days"]) == ("warn", 12)
    assert "prune" in str(soon.hint)
    assert later.state == "ok"


def test_little_free_space_is_warned_of() -> None:
    with _files.use(Free(900 << 20)):
        assert found("free space").state == "warn"


def test_a_huge_log_is_named() -> None:
    log_of(2 << 30)
    shown = found("logs")

    assert shown.state == "warn"
    assert "r alone has 2.0 GiB" in shown.text


def test_many_logs_are_warned_of() -> None:
    LOGS.mkdir(parents=True)
    for number in range(60):
        with (LOGS / f"r{number}.jsonl").open("wb") as file:
            file.truncate(1000 << 20)
    shown = found("logs")

    assert (shown.state, shown.data["runs"]) == ("warn", 60)
    assert "prune" in str(shown.hint)


def test_logs_in_a_folder_that_is_a_link_are_counted(tmp_path: Path) -> None:
    log_of(3 << 20)
    link = tmp_path / "link"
    link.symlink_to(LOGS.absolute())

    assert found("logs", log_dir=link).data["bytes"] == 3 << 20


def test_only_runs_are_counted() -> None:
    log_of(1 << 20)
    for name in ("pruned.jsonl", "traces+0123abcd.jsonl"):
        (LOGS / name).write_bytes(b"x")

    assert found("logs").text == "1 MiB of 1 runs"


def test_a_file_in_the_place_of_the_log_folder_does_not_stop_the_other_checks(
    tmp_path: Path,
) -> None:
    path = tmp_path / "file"
    path.touch()
    states = {one.name: one.state for one in examine(path)}

    assert (states["log folder"], states["logs"]) == ("fail", "fail")
    assert {"free space", "sync", "lock", "collector", "versions"} <= states.keys()
    assert path.exists()


def test_a_folder_below_a_file_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    place = found("log folder", log_dir=tmp_path / "file" / "logs")

    assert place.state == "fail"
    assert f"{tmp_path / 'file'} is not a folder" in place.text


def test_what_a_killed_unpack_left_is_named() -> None:
    left = LOGS / ".unpack-0123abcd"
    left.mkdir(parents=True)

    assert "`unpack` left .unpack-0123abcd" in found("unpack").text
    with staging(Store(LOGS.absolute())):
        assert [one for one in examine(LOGS) if one.name == "unpack"] == []
    assert not left.exists()
