"""Ridge regression on bulk simulated from what the pairs teach."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scdeconv.models._record import Method
from scdeconv.models.paired.ridge import Ridge
from scdeconv.pp import BROAD, fit_calibration

if TYPE_CHECKING:
    from collections.abc import Collection

    from mudata import MuData


class SimulationRidge(Ridge):
    """The same regression on bulk simulated from the calibration that the pairs teach (:func:`scdeconv.pp.calibrate`).

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`. The selected genes are used, all where none are selected.
    n_simulated
        Simulated samples.

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> scdeconv.models.SimulationRidge.setup_mudata(mdata)
    >>> model = scdeconv.models.SimulationRidge(mdata, n_simulated=100)
    >>> model.train(seed=1)
    >>> model.predict(mdata["bulk"]).shape
    (12, 7)
    """

    record = Method(
        key="simulation_ridge",
        family="simulated",
        needs=("pairs", "profiles"),
        summary="ridge regression on bulk simulated from the calibration",
        reference="this library",
        stochastic=True,
        genes_per_type=150,
    )

    def __init__(self, mdata: MuData | None = None, *, n_simulated: int = 1000) -> None:
        super().__init__(mdata)
        self.n_simulated = n_simulated
        self.parameters_ = {"n_simulated": n_simulated}

    def train(self, *, held_out: bool = True, seed: int = 0) -> None:
        """Calibrate, simulate with this seed, and regress; ``held_out`` as for the other linear methods."""
        self.seed_ = seed
        super().train(held_out=held_out)

    def _rows(self, without: Collection[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        calibration = fit_calibration(
            self._require_data(), self._reference, self.genes_, without=without, batch_key=self._batch_key
        )
        rng = np.random.default_rng(self.seed_)
        fractions = calibration.draw_compositions(self.n_simulated, BROAD, rng)
        return calibration.draw_bulk(fractions, rng), fractions, np.arange(self.n_simulated)
