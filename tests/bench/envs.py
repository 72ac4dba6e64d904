"""The interpreters: this project's own, and an environment for each peer (``--setup``)."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

OWN = "own"
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Peer:
    """A peer's environment: what is installed there, and the Python that it needs (empty: any).

    ``beside`` says that this project is measured in it too, from the clone, with what it needs.
    """

    name: str
    packages: tuple[str, ...]
    python: str = ""
    beside: bool = False


_LANGGRAPH = ("langgraph==1.2.22", "langgraph-checkpoint-sqlite==3.1.2")
PEERS = {
    peer.name: peer
    for peer in (
        Peer("dbos", ("dbos[otel]==3.4.0",), python="3.11"),
        Peer("langgraph", _LANGGRAPH),
        Peer("langgraph-watched", _LANGGRAPH, beside=True),
        Peer(
            "burr",
            ("apache-burr[tracking-client]==0.42.0", "opentelemetry-exporter-otlp-proto-http"),
        ),
        Peer("orjson", ("orjson==3.13.0",)),
        Peer("eliot", ("eliot==1.18.0",)),
        Peer("tapps-agents", ("tapps-agents==3.7.1", "tomli"), python="3.12"),
        Peer("engines", ("distributed", "ray"), python="3.12", beside=True),
        Peer("tapps-engine", ("tapps-agents==3.7.1", "tomli"), python="3.12", beside=True),
    )
}


class SetupError(Exception):
    """A peer's environment could not be made."""


def home() -> Path:
    """The folder of the peers' environments: ``TAPPS_BENCH_ENVS``, or one in the user's cache."""
    return (
        Path(os.environ.get("TAPPS_BENCH_ENVS") or "~/.cache/tapps-otel-bench")
        .expanduser()
        .resolve()
    )


def interpreter(env: str) -> Path:
    """Return the path of an environment's Python, which may not exist."""
    return Path(sys.executable) if env == OWN else home() / env / "bin" / "python"


def missing(env: str, needs: Sequence[str]) -> str | None:
    """Tell why something cannot be measured here and how to get it; None if it can."""
    if env == OWN:
        absent = [name for name in needs if importlib.util.find_spec(name) is None]
        return f"python -m pip install {' '.join(absent)}" if absent else None
    return None if _is_ready(PEERS[env]) else f"python -m tests.bench --setup {env}"


def _marker(peer: Peer) -> Path:
    return home() / peer.name / "bench-packages.txt"


def _is_ready(peer: Peer) -> bool:
    try:
        return _marker(peer).read_text().split() == list(peer.packages)
    except OSError:
        return False


def set_up(peer: Peer) -> None:
    """Make the peer's environment anew; its marker comes last, so a broken one is never ready."""
    folder = home() / peer.name
    shutil.rmtree(folder, ignore_errors=True)
    python = find_python(peer.python)
    _run([str(python), "-m", "venv", str(folder)])
    own = [str(ROOT)] if peer.beside else []
    _run([str(interpreter(peer.name)), "-m", "pip", "install", "--quiet", *own, *peer.packages])
    _marker(peer).write_text("\n".join(peer.packages))


def _run(command: list[str]) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SetupError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def find_python(version: str) -> Path:
    """An interpreter of this minor version: this one, one on the path, or one of pyenv's."""
    if version in ("", f"{sys.version_info.major}.{sys.version_info.minor}"):
        return Path(sys.executable)
    for path in (shutil.which(f"python{version}"), *_pyenv_pythons(version)):
        if path and _is_version(path, version):
            return Path(path)
    raise SetupError(
        f"no Python {version} here: install it so that `python{version}` is on the path"
    )


def _pyenv_pythons(version: str) -> list[str]:
    root = Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser()
    return sorted(map(str, root.glob(f"versions/{version}.*/bin/python3")), reverse=True)


def _is_version(path: str, version: str) -> bool:
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([path, "-c", code], check=False, capture_output=True, text=True)
    return done.returncode == 0 and done.stdout.strip() == version
