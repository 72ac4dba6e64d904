"""The script that makes the pictures of the documentation again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from capabilities import need
from commands import environment
from documents import ROOT
from pictures import PICTURES


@pytest.mark.exhaustive
def test_the_pictures_can_be_made_again() -> None:
    need("chromium")
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/pictures.py"), "out"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    made = {path.name: path.read_bytes() for path in Path("out").iterdir()}

    assert done.returncode == 0, done.stderr
    assert {*made, "jaeger-demo.png"} == {path.name for path in PICTURES.iterdir()}
    assert ET.fromstring(made.pop("demo.svg")).tag.endswith("svg")
    assert all(data.startswith(b"\x89PNG") and len(data) > 10_000 for data in made.values())
