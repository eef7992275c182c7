"""Recurrent cells: one module for each, whose `CELL` it is. A module that is put here is a cell that can be chosen."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from charlm.cell import Cell

CELL_NAMES = tuple(sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__)))


def cell_of(name: str) -> Cell:
    """The cell of a name in `CELL_NAMES`; imports TensorFlow."""
    cell: Cell = importlib.import_module(f"{__name__}.{name.replace('-', '_')}").CELL
    return cell
