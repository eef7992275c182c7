"""A training that diverges: values that are no longer finite, and how often it may go back from them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from charlm.checkpoint import Checkpoint
from charlm.errors import DivergedError, named

MOST_BACK_OFFS = 8
BACK_OFF = 0.5  # of the learning rate that is left after each


class NotFinite(Exception):
    """A value of an update or an evaluation is no number or infinite; says which one."""

    def __init__(self, step: int, found: str) -> None:
        super().__init__(f"training diverged at step {step}: {found}")
        self.step, self.found = step, found

    def ended(self, last: Checkpoint | None) -> DivergedError:
        """The error that it ends a run with, whose last checkpoint is given."""
        kept = f"the checkpoint of step {last.step} is whole" if last else "there is no checkpoint yet"
        return DivergedError(f"{self}; {kept}; try a lower {named('train.learning_rate')}")


def check_finite(step: int, values: Mapping[str, float | npt.NDArray[np.generic]]) -> None:
    """Checks numbers and arrays by name; raises NotFinite for the first that is not finite."""
    for name, value in values.items():
        array = np.asarray(value)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise NotFinite(step, f"{name} {value}" if array.ndim == 0 else f"a value of {name} is not finite")
