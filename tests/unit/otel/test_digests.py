"""Digests by span id, as a dictionary would hold them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapps_otel.otel.replay.digests import Digests

# Of few digits, so that ids share their beginnings, and stand within other records by chance.
hexes = st.text("01", min_size=16, max_size=16)
spans = st.dictionaries(hexes, hexes, max_size=40)


@pytest.mark.slow
@given(st.lists(spans, max_size=3), hexes)
def test_it_agrees_with_a_dictionary(parts: list[dict[str, str]], other: str) -> None:
    digests, known = Digests(), dict[str, str]()
    for part in parts:
        digests.update(part)
        known.update(part)

    assert bool(digests) == bool(known)
    assert {one: digests.get(one) for one in (*known, other)} == {other: known.get(other)} | known


def test_malformed_ids_and_digests_are_ignored() -> None:
    digests = Digests()
    digests.update({"0" * 16: 1, "1" * 15: "2" * 17, "x" * 16: "0" * 16, "": "0" * 32})

    assert not digests
