"""Where the code of a workflow is, as far as its log tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from tapps_otel.run.relocation import Place, place_of


@pytest.mark.parametrize("made_up", [5, ["flow.py"], {"flow": "py"}, True])
def test_a_file_that_is_no_text_counts_as_unknown(made_up: object, tmp_path: Path) -> None:
    here = Place("flows:main", (str(tmp_path),))

    assert place_of("flows:main", {"file": made_up}) == here
    assert place_of("flows:main", {}) == here
