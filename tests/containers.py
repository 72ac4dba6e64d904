"""``docker-compose.yml`` in containers: Podman, podman-compose, and images of the built programs.

No registry is asked. All that Podman keeps is in a folder of the test's own, and goes with it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Final

from capabilities import CAPABILITIES, Capability, runs
from otlp_collector import PATIENCE
from ports import free_ports
from stack import COLLECTOR, COMPOSE, PROGRAMS, clean_environment, wait_for

PACKAGES: Final = "podman runc conmon netavark aardvark-dns catatonit iptables busybox-static"
TOOLS: Final = ("sh", "chown", "tail", "wget")  # what docker-compose.yml asks of images


# ---------------------------------------------------------------- Podman


@dataclass(frozen=True)
class Podman:
    """Podman with images, containers, volumes and networks in a folder of its own."""

    folder: Path

    def __post_init__(self) -> None:
        networks = self.folder / "networks"
        networks.mkdir()
        # By default Podman asks for more than the limits of this process allow. `vfs` works on
        # every file system, and `runc` with every kind of control groups.
        limits = [
            f"{name}={_limit(kind)}:{_limit(kind)}"
            for name, kind in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC))
        ]
        (self.folder / "containers.conf").write_text(
            f"[containers]\ndefault_ulimits = {json.dumps(limits)}\n"
            f'[engine]\nruntime = "runc"\ntmp_dir = "{self.folder}/tmp"\n'
            f'[network]\nnetwork_config_dir = "{networks}"\n',
            "utf-8",
        )
        (self.folder / "storage.conf").write_text(
            f'[storage]\ndriver = "vfs"\n'
            f'graphroot = "{self.folder}/kept"\nrunroot = "{self.folder}/run"\n',
            "utf-8",
        )

    def environment(self, **more: str) -> dict[str, str]:
        """The variables with which every command uses this folder."""
        return clean_environment(
            CONTAINERS_CONF=str(self.folder / "containers.conf"),
            CONTAINERS_STORAGE_CONF=str(self.folder / "storage.conf"),
            **more,
        )

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return _run("podman", *arguments, env=self.environment())

    def make_image(self, name: str, program: Path, *, tools: bool = True) -> str:
        """Make an image that runs a program, and return its name.

        :param tools: whether it contains a shell and the programs of :data:`TOOLS`
        """
        busybox = _path("busybox")
        archive = self.folder / f"{name}.tar"
        with tarfile.open(archive, "w", dereference=True) as layer:
            layer.add(program, program.name)
            for tool in TOOLS if tools else ():
                layer.add(busybox, f"bin/{tool}")
            for library in _libraries(program) | (_libraries(busybox) if tools else set()):
                layer.add(library, library.lstrip("/"))
        image = f"localhost/tapps-otel/{name}:test"
        entry = f'--change=ENTRYPOINT ["/{program.name}"]'
        done = self("import", "--quiet", entry, str(archive), image)
        archive.unlink()
        assert done.returncode == 0, done.stderr
        return image

    def reset(self) -> None:
        """End and remove everything."""
        done = self("system", "reset", "--force")
        assert done.returncode == 0, done.stderr


def _limit(kind: int) -> int:
    hard = resource.getrlimit(kind)[1]
    return 4096 if hard == resource.RLIM_INFINITY else min(hard, 4096)


def _run(
    *command: str, env: Mapping[str, str], cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=env, cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )


def _path(program: str) -> Path:
    return Path(shutil.which(program) or program).resolve()


def _libraries(program: Path) -> set[str]:
    """The paths of what a program is linked with."""
    return set(re.findall(r"(/\S+) \(0x", _run("ldd", str(program), env=os.environ).stdout))


@contextmanager
def podman() -> Iterator[Podman]:
    """Podman, and an end of all that it has started.

    One at a time on a machine: firewall rules are shared, and locked only within one folder.
    """
    # Not in a test's folder: the paths of sockets must be short.
    with (
        _path("podman").open("rb") as lock,
        tempfile.TemporaryDirectory(prefix="podman-") as folder,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = Podman(Path(folder))
        try:
            yield made
        finally:
            made.reset()


# ---------------------------------------------------------------- whether there are containers


# Whether this system lets us make what containers consist of.
CAN_BE_MADE: Final = runs(
    "unshare", "--mount", "--pid", "--net", "--ipc", "--uts", "--cgroup", "--fork", "true"
)


@cache
def _containers_run() -> bool:
    programs = ("podman", "runc", "conmon", "iptables", "busybox")
    if not CAN_BE_MADE or not all(map(shutil.which, programs)):
        return False
    try:
        with podman() as tried:
            image = tried.make_image("tried", _path("busybox"))
            done = tried("run", "--rm", "--publish=127.0.0.1::80", image, "true")
            assert done.returncode == 0, done.stderr
    except AssertionError as error:
        sys.stderr.write(str(error))  # pytest shows it if the test fails for it
        return False
    return True


CAPABILITIES.setdefault(
    "containers",
    Capability(
        _containers_run,
        f"install them (apt-get install --no-install-recommends {PACKAGES})"
        if CAN_BE_MADE
        else "run as root, on a system that allows namespaces",
        installable=CAN_BE_MADE and shutil.which("apt-get") is not None,
    ),
)


# ---------------------------------------------------------------- the project


@dataclass(frozen=True)
class Project:
    """A copy of ``docker-compose.yml`` and its files, run in containers.

    :ivar logs: the folder of the host whose audit logs are read
    """

    podman: Podman
    folder: Path
    logs: Path
    ports: Mapping[str, int]
    name: str = "tapps-test"

    def __call__(self, *arguments: str) -> str:
        """Run a command of podman-compose."""
        command = (sys.executable, "-m", "podman_compose", f"--project-name={self.name}")
        # A program's log folder is set for whoever starts the stack, too.
        env = self.podman.environment(TAPPS_OTEL_LOG_DIR="elsewhere")
        done = _run(*command, *arguments, env=env, cwd=self.folder)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def url(self, name: str) -> str:
        """The address of a published port, by the name of its variable."""
        return f"http://127.0.0.1:{self.ports[name]}"

    def process(self, service: str) -> int:
        """The first process of a service; 0 if it does not run."""
        said = self.podman("inspect", "--format={{.State.Pid}}", self._container(service)).stdout
        return int(said or 0)

    def kill(self, service: str) -> int:
        """Kill a service's first process, as a crash would, and return which it was."""
        process = self.process(service)
        assert process, f"{service} does not run"
        os.kill(process, signal.SIGKILL)
        return process

    def wait_until_healthy(self, *services: str) -> None:
        """Wait until the health checks of ``docker-compose.yml`` succeed.

        Podman leaves asking to systemd, which is not everywhere.
        """
        for service in services:
            wait_for(partial(self._is_healthy, service), f"{service} is healthy", 4 * PATIENCE)

    def volume(self, name: str) -> Path:
        """The folder of the host in which a volume is kept."""
        said = self.podman("volume", "inspect", "--format={{.Mountpoint}}", f"{self.name}_{name}")
        return Path(said.stdout.strip())

    def _is_healthy(self, service: str) -> bool:
        return self.podman("healthcheck", "run", self._container(service)).returncode == 0

    def _container(self, service: str) -> str:
        return f"{self.name}_{service}_1"


def make_project(engine: Podman, folder: Path, logs: Path) -> Project:
    """Lay out a project with free ports, and images of the built programs."""
    shutil.copytree(COLLECTOR, folder / "collector")
    shutil.copy(COMPOSE, folder)
    names = ("OTLP_GRPC", "OTLP_HTTP", "JAEGER", "PROMETHEUS")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    variables = {
        "TAPPS_UID": os.getuid(),
        "TAPPS_GID": os.getgid(),
        "TAPPS_HOST_LOG_DIR": logs,
        # As in the published image, there are no tools in it.
        "TAPPS_COLLECTOR_IMAGE": engine.make_image("collector", PROGRAMS["collector"], tools=False),
        "TAPPS_JAEGER_IMAGE": engine.make_image("jaeger", PROGRAMS["jaeger"]),
        "TAPPS_PROMETHEUS_IMAGE": engine.make_image("prometheus", _path("prometheus")),
        **{f"TAPPS_{name}_PORT": port for name, port in ports.items()},
    }
    (folder / ".env").write_text("".join(f"{k}={v}\n" for k, v in variables.items()), "utf-8")
    return Project(engine, folder, logs, ports)
