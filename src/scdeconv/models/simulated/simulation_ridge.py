"""Ridge regression on bulk simulated from the calibration of the pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from scdeconv._data.checks import checked
from scdeconv.models._cross_fitted import CrossFittedModel
from scdeconv.models._record import Method
from scdeconv.models.paired.ridge import RidgeState, fit_ridge
from scdeconv.pp import BROAD, fit_calibration

if TYPE_CHECKING:
    from collections.abc import Collection

    from mudata import MuData

    from scdeconv._data.paired_data import PairedData


class SimulationRidge(CrossFittedModel):
    """Ridge regression (:class:`Ridge`) on bulk simulated from the calibration (:func:`scdeconv.pp.calibrate`).

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`. The selected genes are used, or all genes if none were selected.
    n_simulated
        Number of simulated samples.

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

    state_type = RidgeState

    @classmethod
    def tuning_space(cls) -> dict[str, Any]:
        """Return the default search space of :func:`scdeconv.tl.tune`, without the number of genes.

        Returns
        -------
        Dictionary from argument names to choices or Optuna distributions.
        """
        from optuna.distributions import IntDistribution

        return {"n_simulated": IntDistribution(250, 8000, log=True)}

    @checked()
    def __init__(self, mdata: MuData | None = None, *, n_simulated: int = 1000) -> None:
        super().__init__(mdata)
        self.parameters_ = {"n_simulated": n_simulated}

    @checked()
    def train(self, *, held_out: bool = True, seed: int = 0) -> None:
        """Calibrate, simulate bulk and fit the regression.

        Parameters
        ----------
        held_out
            As for :meth:`scdeconv.models.CrossFittedModel.train`.
        seed
            Seed of the simulation.
        """
        self._train(held_out=held_out, seed=seed)

    def fit(self, data: PairedData, without: Collection[str] = (), *, seed: int = 0) -> RidgeState:
        """Regress the fractions of simulated bulk on its expression.

        Parameters
        ----------
        data, without
            As for :meth:`scdeconv.models.CrossFittedModel.fit`.
        seed
            Seed of the simulation.

        Returns
        -------
        The learned state, a ``RidgeState``.
        """
        n_simulated = self.parameters_["n_simulated"]
        calibration = fit_calibration(data, without, batch_key=data.batch_key)
        rng = np.random.default_rng(seed)
        fractions = calibration.draw_compositions(n_simulated, BROAD, rng)
        return fit_ridge(calibration.draw_bulk(fractions, rng), fractions, np.arange(n_simulated))
