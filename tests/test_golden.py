"""Golden loss curves: what was learnt before is learnt after a change of the code."""

import json

import golden
import pytest

from charlm.cells import CELL_NAMES

KEPT = json.loads(golden.FILE.read_text())


@pytest.mark.parametrize("name", golden.CURVES)
def test_the_first_losses_are_those_that_were_committed(name):
    losses = golden.losses(*golden.CURVES[name])
    assert losses == pytest.approx(KEPT[name], rel=1e-9)


def test_every_curve_learns_and_none_is_anothers():
    assert {cell for cell, _, _ in golden.CURVES.values()} == set(CELL_NAMES)
    assert len({tuple(curve) for curve in KEPT.values()}) == len(KEPT)
    for curve in KEPT.values():
        assert sum(curve[-10:]) < sum(curve[:10])
