"""Base class of the deconvolution models: fractions, prediction intervals, quality."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pandas as pd

from scdeconv._data.checks import checked
from scdeconv._data.gene_names import strip_versions
from scdeconv._data.genes import align_genes
from scdeconv._data.matrix import get_matrix
from scdeconv._data.units import ARRAY
from scdeconv.io import SavedModel, TrainingRecord, refuse_failed_parts

from ._intervals import interval_bounds, sum_tables, warn_of_few_donors
from ._known import known_parts, use_known
from ._state import Estimate
from ._training_record import DeconvolutionRecord, replace_fit, source_table, warn_of_other_unit
from ._usable import flag_few_reads, flag_wide_intervals, fractions_of_all, quality_of_all, with_reads

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

    from scdeconv._stats.conformal import HeldOut
    from scdeconv._stats.recognition.familiarity import Familiarity

    from ._record import Method


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
    >>> lower, upper = model.predict_interval(mdata["bulk"], coverage=0.8)
    >>> bool((lower <= upper).all(axis=None))
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
            if self.training_.samples is not None:
                self.training_.samples.check(0 if self.held_out_ is None else len(self.held_out_.predicted))
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
    def predict(self, adata: AnnData, *, layer: str | None = None, in_sample: bool = False) -> pd.DataFrame:
        """Estimate the composition of bulk samples.

        Samples that the model was trained on are recognised by their expression. They get their out-of-fold
        predictions, because the fit of a training sample is no estimate of its composition.

        Parameters
        ----------
        adata
            Bulk samples × genes, counts or TPM as in training. Genes are found by name; the object is not changed.
        layer
            Layer to read instead of ``X``.
        in_sample
            Return the fit of the training samples instead of their out-of-fold predictions.

        Returns
        -------
        Fractions, samples × cell types; rows sum to 1. Rows of NaN for samples without reads in the model's genes.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If the values are not linear expression, or if less than half of the model's genes are present.

        Warns
        -----
        UserWarning
            If samples have no reads in the model's genes, or if the method found no composition of a sample.
        """
        expression, usable = self._aligned(adata, layer)
        # a method need not accept a table without samples
        fractions = self.state_.fractions(expression) if usable.any() else np.empty((0, len(self.cell_types_)))
        fitted = fractions_of_all(fractions, usable, adata.obs_names)
        fractions, _, _ = replace_fit(self.training_, adata, layer, fitted, in_sample=in_sample)
        return pd.DataFrame(fractions, index=adata.obs_names, columns=self.cell_types_)

    @checked()
    def estimate(
        self,
        adata: AnnData,
        *,
        coverage: float | None = None,
        layer: str | None = None,
        in_sample: bool = False,
        groups: Mapping[str, Sequence[str]] | None = None,
        known: pd.DataFrame | None = None,
        known_se: pd.DataFrame | None = None,
    ) -> dict[str, pd.DataFrame]:
        """Return fractions, intervals and quality of bulk samples in one pass over the data.

        Parameters
        ----------
        adata, layer, in_sample
            As for :meth:`predict`.
        coverage
            As for :meth:`predict_interval`. None: no intervals.
        groups
            Cell types to add up, by the name of the sum. None: the levels of the hierarchy of :func:`scdeconv.pp.pair`.
        known, known_se
            Known fractions and their standard errors, as for :func:`scdeconv.tl.predict`.

        Returns
        -------
        Dictionary of DataFrames with one row per sample:

        - ``fractions`` as from :meth:`predict`;
        - ``lower`` and ``upper`` with ``coverage``, as from :meth:`predict_interval`;
        - ``by_level`` with the sum of each group, and with ``coverage`` ``by_level_lower`` and ``by_level_upper``;
        - ``quality`` as from :meth:`quality`; with bounds from resampled data also ``wide_intervals``: the intervals
          are as wide as the spread of the compositions of the training bulk;
        - ``source``, if there are training samples: ``"new"``, ``"out-of-fold"`` or ``"in-sample"`` (the fit).
        """
        self._require_trained()
        parts = known_parts(self, adata.obs_names, known, known_se)
        expression, usable = self._aligned(adata, layer)
        estimate = self.state_.estimate(expression) if usable.any() else Estimate(np.empty((0, len(self.cell_types_))))
        fitted = fractions_of_all(estimate.fractions, usable, adata.obs_names)
        fractions, source, row = replace_fit(self.training_, adata, layer, fitted, in_sample=in_sample)
        estimate, fractions = use_known(
            self.state_, expression, usable, estimate, fractions, row >= 0, parts, adata.obs_names
        )
        if coverage is not None and self.held_out_ is None:
            estimate = replace(estimate, resamples=self.state_.resample(expression))
        whole = estimate.on_all_rows(fractions, usable)
        tables: dict[str, Any] = {"fractions": fractions}
        if coverage is not None:
            lower, upper = interval_bounds(self.held_out_, whole, row, coverage, parts, np.eye(fractions.shape[1]))
            tables |= {"lower": lower, "upper": upper}
            warn_of_few_donors(adata.obs_names[(row >= 0) & np.isnan(lower).any(axis=1)], coverage)
        found = {name: pd.DataFrame(table, adata.obs_names, self.cell_types_) for name, table in tables.items()}
        sums = self.training_.levels if groups is None else groups
        if sums:
            found |= sum_tables(sums, found, whole, self.held_out_, row, coverage, parts)
        quality = self.state_.quality(expression, fractions[usable]) if usable.any() else None
        if quality is None and self.familiarity_ is not None and estimate.noise is not None:
            quality = self.familiarity_.quality(estimate.noise, found["fractions"][usable])
        quality = flag_few_reads(quality, expression, self.training_.library_size)
        if whole.resamples is not None and coverage is not None:
            quality = flag_wide_intervals(quality, (upper - lower)[usable], self.state_.cohort_sd, coverage)
        if quality is not None:
            found["quality"] = quality_of_all(quality, usable, adata.obs_names)
        return found | source_table(source, adata.obs_names)

    def _aligned(self, adata: AnnData, layer: str | None) -> tuple[np.ndarray, np.ndarray]:
        """Return the expression of the model's genes in the samples that have reads in them, and the mask of these samples.

        Missing genes are NaN. For a model without genes, a sample needs reads in any gene.
        """
        self._require_trained()
        trained_on = self.training_.bulk_unit
        genes = strip_versions(self.genes_)
        expression = align_genes(adata, genes, layer=layer, array=trained_on == ARRAY, may_be_empty=True)
        matrix = get_matrix(adata, layer, "adata")
        warn_of_other_unit(matrix, trained_on)
        totals = np.nansum(expression, axis=1) if len(self.genes_) else np.asarray(matrix.sum(axis=1)).ravel()
        usable = with_reads(totals, adata.obs_names)
        return expression[usable], usable

    @checked()
    def quality(self, adata: AnnData, *, layer: str | None = None, in_sample: bool = False) -> pd.DataFrame | None:
        """Return how well the model fits each sample.

        Parameters
        ----------
        adata, layer, in_sample
            As for :meth:`predict`.

        Returns
        -------
        DataFrame of samples × measures; None for methods without quality measures that were not trained on counts.
        ``few_reads``: less than 10 % of the reads of the median training sample in the model's genes. Samples without
        reads are NaN or True. Models with a calibration also return ``noise`` (root mean square of the residual,
        relative to its expectation), ``composition`` (largest distance of a cell type from the mean of the training
        donors, in SD) and ``outside`` (one of them is 25 % above the maximum over the held-out training donors).
        """
        return self.estimate(adata, layer=layer, in_sample=in_sample).get("quality")

    @checked()
    def predict_interval(
        self, adata: AnnData, coverage: float = 0.9, *, layer: str | None = None, in_sample: bool = False
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return lower and upper bounds of the fractions of bulk samples.

        The bounds are from the out-of-fold errors of the training donors. If new donors come from the same population,
        the interval contains the fraction with probability ``coverage``, on average over samples and cell types. Bounds
        of a training sample are around its out-of-fold prediction, from the errors of the other donors; NaN if these
        are too few. Without held-out donors, :class:`scdeconv.models.RobustNNLS` resamples its training data.

        Parameters
        ----------
        adata, layer, in_sample
            As for :meth:`predict`.
        coverage
            Probability that the interval contains the fraction. With held-out donors at most n / (n + 1) for n donors.

        Returns
        -------
        Lower and upper bounds, samples × cell types.

        Raises
        ------
        ValueError
            If the number of training donors is too small for the coverage, or if no donors were held out.
        """
        found = self.estimate(adata, coverage=coverage, layer=layer, in_sample=in_sample)
        return found["lower"], found["upper"]
