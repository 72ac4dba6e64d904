"""``collector/stack.sh``, as a user runs it: the stack without Docker."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from capabilities import need
from commands import LOGS, Done, child
from stack import COLLECTOR, DIR, Stack, wait_for

pytestmark = pytest.mark.stack

Script = Callable[..., Done]


def run(script_env: dict[str, str], *arguments: str) -> Done:
    done = subprocess.run(
        [COLLECTOR / "stack.sh", *arguments],
        env=script_env,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def stack(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """Free addresses, at which the script starts the programs."""
    return Stack(tmp_path_factory.mktemp("addresses"), tmp_path / LOGS)


@pytest.fixture
def script(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Script]:
    """The script with its own folder, in which the programs are already built."""
    need("stack")
    folder = tmp_path_factory.mktemp("script")
    (folder / "bin").symlink_to(DIR / "bin")
    env = {**stack.environment(), "TAPPS_STACK_DIR": str(folder)}
    yield lambda *arguments, **more: run({**env, **more}, *arguments)
    run(env, "down")


def processes(said: str) -> list[str]:
    return re.findall(r"\(process (\d+)\)", said)


# ---------------------------------------------------------------- up and down


def test_up_starts_a_stack_in_which_the_demos_crash_and_resume_are_seen(
    script: Script, stack: Stack
) -> None:
    up = script("up")
    env = {**stack.env(), "TAPPS_OTEL_JAEGER_URL": stack.jaeger_url}
    demo = child("demo", **env)
    (trace_id,) = re.findall(r"trace at your collector is ([0-9a-f]{32})", demo.out)
    (run_id,) = re.findall(r"open (survey-\S+)", demo.out)

    def ended() -> set[str]:
        spans = stack.spans(trace_id)
        return {span.tags["tapps.status"] for span in spans if span.name == "workflow survey"}

    wait_for(lambda: ended() == {"interrupted", "completed"}, "both executions")
    opened = child("open", run_id, **env)
    shown = child("show", run_id, **env)
    link = f"{stack.jaeger_url}/trace/{trace_id}"

    assert (up.code, up.err) == (0, "")
    assert stack.otlp() in up.out
    assert stack.jaeger_url in up.out
    assert (opened.code, opened.out, opened.err) == (0, f"{link}\n", "")
    assert f"jaeger    {link}\n" in shown.out
    doctor = child("doctor", **env).out
    assert f"✓ jaeger       {stack.jaeger_url} answers\n" in doctor
    assert f"✓ collector    {stack.addresses['OTLP_GRPC']} accepts spans by grpc\n" in doctor


def test_status_up_and_down_report_what_is_running(script: Script) -> None:
    before = script("status")
    first, second = script("up"), script("up")
    status = script("status")
    down = script("down")
    after = script("status")

    assert (before.code, first.err, second.err, status.code, after.code) == (1, "", "", 0, 1)
    assert processes(first.out) == processes(second.out) == processes(status.out) != []
    assert down.code == 0
    assert {"collector is stopped", "jaeger is stopped"} <= set(down.out.splitlines())
    assert "is not running" in after.out
    assert script("down").out == ""


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6 on its loopback")
def test_addresses_may_be_ipv6(script: Script, stack: Stack) -> None:
    ours = {name: text for name, text in stack.environment().items() if "TAPPS_STACK_" in name}
    six = {name: text.replace("127.0.0.1", "[::1]") for name, text in ours.items()}
    host = {"TAPPS_STACK_COLLECTOR_METRICS_HOST": "[::1]"}
    up = script("up", **six, **host)
    jaeger, collector = six["TAPPS_STACK_JAEGER_HTTP"], six["TAPPS_STACK_OTLP_GRPC"]
    demo = child("demo", OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{collector}")
    (run_id,) = re.findall(r"open (survey-\S+)", demo.out)

    assert (up.code, up.err) == (0, "")
    assert f"jaeger      http://{jaeger}" in up.out
    wait_for(
        lambda: child("verify", run_id, "--against", f"http://{jaeger}").code == 0, "all spans"
    )


@pytest.mark.skipif(shutil.which("flock") is None, reason="without flock a second up does not wait")
def test_concurrent_ups_start_one_stack(script: Script) -> None:
    with ThreadPoolExecutor(4) as pool:
        ups = list(pool.map(lambda _: script("up"), range(4)))

    assert [up.code for up in ups] == [0] * 4
    assert len({tuple(processes(up.out)) for up in ups}) == 1


def test_a_killed_program_is_restarted_at_the_same_addresses(script: Script) -> None:
    collector, jaeger, *_ = processes(script("up").out)
    os.kill(int(jaeger), 9)
    wait_for(lambda: script("status").code == 1, "status reports it")
    other_address = {"TAPPS_STACK_JAEGER_HTTP": "127.0.0.1:1"}
    again = script("up", **other_address)

    assert again.code == 0
    assert processes(again.out)[0] == collector
    assert processes(again.out)[1] != jaeger
    assert "127.0.0.1:1 " not in again.out


def test_a_missing_log_folder_is_reported(script: Script, tmp_path: Path) -> None:
    missing = script("up")
    script("down")
    (tmp_path / LOGS).mkdir(parents=True)

    assert f"note: the folder {tmp_path / LOGS} does not exist yet" in missing.out
    assert "note:" not in script("up").out


def test_a_log_folder_that_is_a_pattern_is_reported(script: Script, tmp_path: Path) -> None:
    folder = tmp_path / "logs[1]"
    folder.mkdir()

    assert f"note: {folder} contains one of" in script("up", TAPPS_OTEL_LOG_DIR=str(folder)).out


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read every folder")
def test_a_log_folder_that_cannot_be_read_is_reported(script: Script, tmp_path: Path) -> None:
    (tmp_path / LOGS).mkdir(parents=True, mode=0o000)

    assert f"the folder {tmp_path / LOGS} cannot be read" in script("up").out


# ---------------------------------------------------------------- clear errors


@pytest.mark.parametrize("taken", ["OTLP_GRPC", "JAEGER_HTTP"])
def test_a_port_in_use_is_reported_with_its_program_and_nothing_starts(
    script: Script, stack: Stack, taken: str
) -> None:
    host, port = stack.addresses[taken].split(":")
    with socket.create_server((host, int(port))):
        up = script("up")

    assert up.code == 1
    assert f" cannot listen on {host}:{port}: it is in use by " in up.err
    if shutil.which("ss") or shutil.which("lsof"):
        assert f"process {os.getpid()}\n" in up.err
    assert processes(script("status").out) == []


def test_up_before_build_names_the_command(stack: Stack, tmp_path: Path) -> None:
    up = run({**stack.environment(), "TAPPS_STACK_DIR": str(tmp_path / "new")}, "up")

    assert up.code == 1
    assert up.err.startswith("error: collector is not built\n  Run: ")
    assert up.err.endswith("stack.sh build\n")


def test_build_does_nothing_if_the_pins_are_built(script: Script) -> None:
    need("go")
    done = script("build")

    assert (done.code, done.err) == (0, "")
    assert re.fullmatch(r"collector \S+ is built\njaeger \S+ is built\n", done.out)


def test_build_without_go_says_what_to_do(stack: Stack, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "cat", "cksum", "dirname", "mkdir", "sed"):
        (tools / name).symlink_to(str(shutil.which(name)))
    env = {"PATH": str(tools), "TAPPS_STACK_DIR": str(tmp_path / "new")}
    done = run(env, "build")

    assert done.code == 1
    assert done.err.startswith("error: Go is not installed\n  Install Go ")


def test_a_module_that_cannot_be_downloaded_is_reported(stack: Stack, tmp_path: Path) -> None:
    need("go")
    env = {
        **stack.environment(),
        "TAPPS_STACK_DIR": str(tmp_path / "new"),
        "GOPROXY": "off",
        "GOFLAGS": "-modcacherw",
        "GOMODCACHE": str(tmp_path / "modules"),
    }
    done = run(env, "build")

    assert done.code == 1
    assert "module lookup disabled by GOPROXY=off" in done.err
    assert "check the network and GOPROXY" in done.err
    assert str(tmp_path / "new" / "log" / "build.log") in done.err


def test_an_unknown_command_prints_the_usage() -> None:
    done = run(dict(os.environ), "destroy")

    assert done.code == 2
    assert "stack.sh up" in done.out
