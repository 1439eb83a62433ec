"""Base method and simulated bulk of the members of a ResidualDNN, fitted without their held-out donors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from scdeconv._nn import TrainingData
from scdeconv._stats.expression import log_shares
from scdeconv.models._members import tensor
from scdeconv.models.paired.calibrated_map import CalibratedMAP, CalibratedMAPState
from scdeconv.models.paired.ridge import Ridge, RidgeState
from scdeconv.pp import BROAD, fit_calibration

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from scdeconv._data.paired_data import PairedData

# weight of a real pair relative to a simulated one; set by hand
PAIR_WEIGHT = 10.0


@dataclass(frozen=True)
class Start:
    """Base method and simulated bulk of one member.

    Parameters
    ----------
    base
        State of the base method.
    bulk, fractions
        Simulated bulk (samples × genes) and its composition (samples × cell types); None without simulation.
    """

    base: CalibratedMAPState | RidgeState
    bulk: np.ndarray | None
    fractions: np.ndarray | None


def with_simulated(pairs: TrainingData, starts: Sequence[Start]) -> TrainingData:
    """Return the pairs of each member, followed by its simulated bulk."""
    n_members, n_choices = len(starts), pairs.targets.shape[1]
    drawn: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for start in starts:
        if id(start) not in drawn and start.bulk is not None:
            drawn[id(start)] = log_shares(start.bulk), start.base.log_ratios(start.bulk)
    x, offsets = (tensor(np.stack([drawn[id(start)][part] for start in starts])) for part in (0, 1))
    fractions = tensor(np.stack([start.fractions for start in starts if start.fractions is not None]))
    return TrainingData(
        torch.cat([pairs.x.expand(n_members, -1, -1), x], dim=1),
        torch.cat(
            [pairs.targets.expand(n_members, -1, -1, -1), fractions[:, :, None].expand(-1, -1, n_choices, -1)], dim=1
        ),
        torch.cat([PAIR_WEIGHT * pairs.weights, torch.ones(x.shape[:2])], dim=1),
        None if pairs.offsets is None else torch.cat([pairs.offsets, offsets], dim=1),
    )


class Starts:
    """Fits the base method and simulates bulk without held-out donors; results are cached by held-out donors.

    Parameters
    ----------
    base
        Base method.
    data
        Pairs and reference.
    simulate
        Number of simulated samples; None: no simulation.
    seed
        Seed of the simulation.
    """

    def __init__(self, base: CalibratedMAP | Ridge, data: PairedData, simulate: int | None, seed: int) -> None:
        self._base, self._data, self._simulate = base, data, simulate
        self._rng = np.random.default_rng(seed)
        self._found: dict[tuple[str, ...], Start] = {}

    def without(self, donors: Collection[str]) -> Start:
        """Return base method and simulated bulk, fitted without these donors."""
        key = tuple(sorted(set(donors)))
        if key not in self._found:
            bulk = fractions = None
            if self._simulate is not None:
                calibration = fit_calibration(self._data, key, batch_key=self._data.batch_key)
                fractions = calibration.draw_compositions(self._simulate, BROAD, self._rng)
                bulk = calibration.draw_bulk(fractions, self._rng)
            self._found[key] = Start(self._base.fit(self._data, key), bulk, fractions)
        return self._found[key]

    def of_members(self, donors: np.ndarray, held: np.ndarray) -> list[Start]:
        """Return the start of each member from the donor of each row and the held-out rows of each member."""
        return [self.without(donors[left_out]) for left_out in held]
