"""Whether a bulk sample is like those that a model was trained on."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Self

import numpy as np
import pandas as pd

from scdeconv.pp import LinearisedCalibration

from ._intervals import angle

if TYPE_CHECKING:
    from collections.abc import Sequence

# standard deviation, on the angular scale, that a cell type has at least (a hundredth of the scale)
LEAST_SPREAD = 0.01
# a sample is outside when it is further off than any training donor was to the others, by this factor
MARGIN = 1.25


def composition_distance(fractions: np.ndarray, usual: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Return, per sample, how many standard deviations the most unusual cell type is off, on the angular scale."""
    return np.abs((angle(fractions) - usual) / spread).max(axis=1)


def usual_composition(fractions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each cell type on the angular scale."""
    angles = angle(fractions)
    return angles.mean(axis=0), angles.std(axis=0, ddof=1) + LEAST_SPREAD


@dataclass
class Familiarity:
    """What samples like the training donors look like: their noise under the calibration, and their compositions."""

    calibration: LinearisedCalibration
    usual: np.ndarray
    spread: np.ndarray
    limits: np.ndarray

    @classmethod
    def from_held_out(
        cls,
        calibration: LinearisedCalibration,
        folds: Sequence[tuple[LinearisedCalibration, np.ndarray]],
        fractions: np.ndarray,
    ) -> Self:
        """Learn the limits from donors that are held out.

        Parameters
        ----------
        calibration
            Of all donors.
        folds
            Log expression of held-out donors, each with the calibration of the others.
        fractions
            Measured compositions of the donors.
        """
        noise = max(float(fold.noise_level(log).max()) for fold, log in folds)
        others = [np.delete(fractions, row, axis=0) for row in range(len(fractions))]
        composition = max(
            float(composition_distance(fractions[row, None], *usual_composition(rest))[0])
            for row, rest in enumerate(others)
        )
        return cls(calibration, *usual_composition(fractions), MARGIN * np.array([noise, composition]))

    def quality(self, log: np.ndarray, fractions: np.ndarray, samples: pd.Index) -> pd.DataFrame:
        """Return ``noise``, ``composition`` and whether one of them is ``outside``, from expression and estimates."""
        measures = np.column_stack(
            [
                self.calibration.noise_level(log),
                composition_distance(fractions, self.usual, self.spread),
            ]
        )
        table = pd.DataFrame(measures, index=samples, columns=["noise", "composition"])
        table["outside"] = (measures > self.limits).any(axis=1)
        return table

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return everything as named arrays, for files."""
        return vars(self.calibration) | {name: getattr(self, name) for name in ("usual", "spread", "limits")}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Self:
        """Make it of what :meth:`to_arrays` returned."""
        own = {name: arrays[name] for name in ("usual", "spread", "limits")}
        calibration = {field.name: arrays[field.name] for field in fields(LinearisedCalibration)}
        return cls(LinearisedCalibration(**calibration), **own)
