"""Base class of the deconvolution models: fractions, prediction intervals, quality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pandas as pd

from scdeconv._data.checks import checked
from scdeconv._data.chunks import first_rows
from scdeconv._data.genes import align_genes, strip_versions
from scdeconv._data.matrix import get_matrix
from scdeconv._data.units import COUNTS, TPM, unit_of
from scdeconv._data.warnings import warn
from scdeconv._stats.conformal import HeldOut
from scdeconv._stats.familiarity import Familiarity
from scdeconv.io import SavedModel, TrainingRecord, refuse_failed_parts

if TYPE_CHECKING:
    from anndata import AnnData

    from ._record import Method

# number of samples read to infer the unit; set by hand
UNIT_CHECK_ROWS = 100


@dataclass(frozen=True, kw_only=True)
class DeconvolutionRecord(TrainingRecord):
    """Training record of a deconvolution model.

    Parameters
    ----------
    cell_types
        Columns of the estimates.
    bulk_unit
        Unit of the training bulk.
    held_out
        Out-of-fold predictions of the training donors.
    familiarity
        Compositions and noise levels of the training donors, the reference of the quality measures.
    """

    cell_types: list[str]
    bulk_unit: str | None = None
    held_out: HeldOut | None = None
    familiarity: Familiarity | None = None


class DeconvolutionModel(SavedModel):
    """Base class of all deconvolution methods: predict fractions, prediction intervals and quality; save and load.

    Methods with a pure ``fit`` derive from :class:`CrossFittedModel`. Neural networks train all members of an ensemble
    together.

    Attributes
    ----------
    parameters_
        Constructor arguments, plain values.
    state_
        Learned state, a :class:`scdeconv.models.State`; None before training.
    training_
        Training record: genes, cell types, seed, loss curves.

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> model = scdeconv.tl.train(mdata, "ridge")  # doctest: +ELLIPSIS
    ridge: ...
    >>> model.save("model", overwrite=True)
    >>> model = scdeconv.models.Ridge.load("model")
    >>> fractions = model.predict(mdata["bulk"])
    >>> lower, upper = model.predict_interval(mdata["bulk"], coverage=0.8)
    >>> bool(((lower <= fractions) & (fractions <= upper)).all(axis=None))
    True
    """

    record: ClassVar[Method]
    method: ClassVar[str]
    fraction_kind: ClassVar[Literal["cell", "rna"]]
    record_type: ClassVar[type[TrainingRecord]] = DeconvolutionRecord

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "record" in vars(cls):
            cls.method, cls.fraction_kind = cls.record.key, cls.record.fraction_kind

    @classmethod
    def tuning_space(cls) -> dict[str, Any] | None:
        """Return the default search space of :func:`scdeconv.tl.tune`, without the number of genes.

        Returns
        -------
        Dictionary from argument names to a list of choices or an Optuna distribution; None if the method has no
        arguments to tune.
        """
        return None

    def _check_loaded(self) -> None:
        """Raise ``ValueError`` if the state does not match the saved gene names or cell-type names."""
        n_genes, n_types = len(self.genes_), len(self.cell_types_)
        expected = f"a state that reads {n_genes} genes and estimates {n_types} cell types"
        # CIBERSORTx needs three different samples
        samples = 1.0 + np.add.outer(np.arange(3), np.arange(n_genes)) % 7
        with refuse_failed_parts(expected):
            estimate = self.state_.estimate(samples)
            if estimate.fractions.shape != (len(samples), n_types) or estimate.fractions.dtype.kind != "f":
                msg = f"estimates of shape {estimate.fractions.shape} and type {estimate.fractions.dtype}"
                raise ValueError(msg)
            if self.held_out_ is not None:
                self.held_out_.intervals(estimate.fractions, self.held_out_.widest_coverage(), estimate.spread)
                self.held_out_.errors()
            if self.familiarity_ is not None:
                self.familiarity_.quality(
                    np.ones(len(samples)), pd.DataFrame(estimate.fractions, columns=self.cell_types_)
                )

    @property
    def cell_types_(self) -> list[str]:
        """Columns of the estimates."""
        self._require_trained()
        return list(self.training_.cell_types)

    @property
    def held_out_(self) -> HeldOut | None:
        """Out-of-fold predictions of the training donors; None if no donors were held out."""
        return self.training_.held_out if self.is_trained_ else None

    @property
    def familiarity_(self) -> Familiarity | None:
        """Compositions and noise levels of the training donors; None for methods that do not estimate noise."""
        return self.training_.familiarity if self.is_trained_ else None

    @checked()
    def predict(self, adata: AnnData, *, layer: str | None = None) -> pd.DataFrame:
        """Estimate the composition of bulk samples.

        Parameters
        ----------
        adata
            Bulk samples × genes, counts or TPM as in training. Genes are found by name; the object is not changed.
        layer
            Layer to read instead of ``X``.

        Returns
        -------
        Fractions, samples × cell types; rows sum to 1.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If the values are not linear expression, or if less than half of the model's genes are present.
        """
        expression = self._aligned(adata, layer)
        fractions = self.state_.fractions(expression)
        return pd.DataFrame(fractions, index=adata.obs_names, columns=self.cell_types_)

    @checked()
    def estimate(
        self, adata: AnnData, *, coverage: float | None = None, layer: str | None = None
    ) -> dict[str, pd.DataFrame]:
        """Return fractions, intervals and quality of bulk samples in one pass over the data.

        Parameters
        ----------
        adata, layer
            As for :meth:`predict`.
        coverage
            Coverage of the prediction intervals, as for :meth:`predict_interval`. None: no intervals.

        Returns
        -------
        Dictionary of DataFrames. ``fractions`` as from :meth:`predict`. With ``coverage``, ``lower`` and ``upper`` as
        from
        :meth:`predict_interval`. ``quality`` as from :meth:`quality`, for models with quality measures.
        """
        expression = self._aligned(adata, layer)
        estimate = self.state_.estimate(expression)
        found = {"fractions": pd.DataFrame(estimate.fractions, index=adata.obs_names, columns=self.cell_types_)}
        if coverage is not None:
            found["lower"], found["upper"] = self._interval(found["fractions"], estimate.spread, coverage)
        quality = self.state_.quality(expression, estimate.fractions)
        if quality is not None:
            found["quality"] = pd.DataFrame(quality, index=adata.obs_names)
        elif self.familiarity_ is not None and estimate.noise is not None:
            found["quality"] = self.familiarity_.quality(estimate.noise, found["fractions"])
        return found

    def _aligned(self, adata: AnnData, layer: str | None) -> np.ndarray:
        """Return the expression of the model's genes; missing genes are NaN."""
        self._require_trained()
        expression = align_genes(adata, strip_versions(self.genes_), layer=layer)
        trained_on = self.training_.bulk_unit
        found = unit_of(first_rows(get_matrix(adata, layer, "adata"))[:UNIT_CHECK_ROWS])
        if {trained_on, found} == {COUNTS, TPM}:
            warn(
                f"Expected {trained_on} in adata, the unit of the training bulk, found {found}. Estimates may be "
                f"wrong. Pass bulk samples in {trained_on}, or pair and train with bulk in {found}."
            )
        return expression

    @checked()
    def quality(self, adata: AnnData, *, layer: str | None = None) -> pd.DataFrame | None:
        """Return how well the model fits each sample.

        Parameters
        ----------
        adata, layer
            As for :meth:`predict`.

        Returns
        -------
        DataFrame of samples × measures; None for methods without quality measures. Models with a calibration return
        ``noise`` (root mean square of the residual, relative to its expected value), ``composition`` (largest distance
        of a cell type from the mean of the training donors, in standard deviations) and ``outside`` (True if one of
        them is more than 25 % above the maximum over the held-out training donors).
        """
        return self.estimate(adata, layer=layer).get("quality")

    @checked()
    def predict_interval(
        self, adata: AnnData, coverage: float = 0.9, *, layer: str | None = None
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return lower and upper bounds of the fractions of bulk samples.

        The bounds are derived from the out-of-fold errors of the training donors. If new donors come from the same
        population, the interval contains the fraction with probability ``coverage``, on average over samples and cell
        types.

        Parameters
        ----------
        adata, layer
            As for :meth:`predict`.
        coverage
            Probability that the interval contains the fraction, at most n / (n + 1) for n training donors.

        Returns
        -------
        Lower and upper bounds, samples × cell types.

        Raises
        ------
        ValueError
            If the number of training donors is too small for the coverage, or if no donors were held out.
        """
        found = self.estimate(adata, coverage=coverage, layer=layer)
        return found["lower"], found["upper"]

    def _interval(
        self, fractions: pd.DataFrame, spread: np.ndarray | float, coverage: float
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        if self.held_out_ is None:
            msg = (
                f"Expected a model with held-out donors, found {type(self).__name__} without. Train a method on at "
                "least 4 paired donors to get prediction intervals."
            )
            raise ValueError(msg)
        bounds = self.held_out_.intervals(fractions.to_numpy(), coverage, spread)
        lower, upper = (pd.DataFrame(bound, fractions.index, fractions.columns) for bound in bounds)
        return lower, upper
