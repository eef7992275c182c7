"""One cell of every kind: computed in blocks or by its own step, with one state or two; what a machine can compute."""

import pytest

from charlm import machine
from charlm.cell import GatedCell
from charlm.cells import CELL_NAMES, cell_of


def _kind(name):
    cell = cell_of(name)
    return isinstance(cell, GatedCell), len(cell.states)


KINDS = sorted({_kind(name): name for name in reversed(CELL_NAMES)}.values())
PATHS = [name for name in KINDS if len(cell_of(name).states) == 2]  # one computed in blocks, one by its own step
multiplies_bfloat16 = pytest.mark.skipif(
    machine._limit_below_bfloat16() is not None, reason="oneDNN, told to use older instructions, would end the process"
)
