"""Ridge regression in closed form, its penalty chosen by leaving whole donors out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import softmax

from scdeconv._data import keys
from scdeconv._data.annotated import values_of
from scdeconv._stats.expression import fill_missing, log_shares, to_shares
from scdeconv._stats.ridge import LEAST_SD, fit_log_ratios
from scdeconv.pp import BROAD, fit_calibration

from ._base import LinearModel

if TYPE_CHECKING:
    from collections.abc import Collection

    from mudata import MuData


class Ridge(LinearModel):
    """Ridge regression from log expression to centred log-ratios of the fractions, on the pairs.

    The penalty is the one whose predictions of left-out donors err least.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`. The selected genes are used, all where none are selected.

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> scdeconv.models.Ridge.setup_mudata(mdata)
    >>> model = scdeconv.models.Ridge(mdata)
    >>> model.train()
    >>> model.predict(mdata["bulk"]).shape
    (12, 7)
    """

    method = "ridge"

    def _fit(self, without: Collection[str]) -> None:
        expression, fractions, groups = self._rows(without)
        shares = to_shares(expression)
        x = log_shares(expression)
        self.reference_, self.centre_, self.scale_ = shares.mean(axis=0), x.mean(axis=0), x.std(axis=0) + LEAST_SD
        fit = fit_log_ratios((x - self.centre_) / self.scale_, fractions, groups)
        self.coefficients_, self.intercept_ = fit.coefficients, fit.intercept
        self.summary_ = f"{len(x)} samples, {len(self.genes_)} genes, penalty {fit.penalty:.2g}"

    def _rows(self, without: Collection[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return expression, fractions and group of the samples to learn from."""
        bulk = self._require_data()[keys.BULK]
        known = self._known(without)
        donors = bulk.obs[keys.DONOR].to_numpy()[known].astype(str)
        return values_of(bulk, known, self.genes_), bulk.obsm[keys.MEASURED].to_numpy(dtype=float)[known], donors

    def _fractions(self, expression: np.ndarray) -> np.ndarray:
        x = (log_shares(fill_missing(expression, self.reference_)) - self.centre_) / self.scale_
        return softmax(x @ self.coefficients_ + self.intercept_, axis=1)

    def _arrays(self) -> dict[str, np.ndarray]:
        names = ("reference", "centre", "scale", "coefficients", "intercept")
        return {name: getattr(self, f"{name}_") for name in names}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        for name, array in arrays.items():
            setattr(self, f"{name}_", array)


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

    method = "simulation_ridge"

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
