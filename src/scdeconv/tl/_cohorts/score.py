"""Test of a method or a model on another cohort with its own measured fractions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from scdeconv import metrics
from scdeconv._data import keys
from scdeconv._data.checks import Problems, checked, examples
from scdeconv._data.fractions import complete_fractions, has_measured, measured_shares
from scdeconv._data.genes import read_genes
from scdeconv._data.modalities import cell_types_of
from scdeconv._data.units import ARRAY, OTHER_UNITS
from scdeconv._data.warnings import warn
from scdeconv.models import PairedData
from scdeconv.pp import keep_genes
from scdeconv.tl._folds import COVERAGE, predict_unseen
from scdeconv.tl._train import check_method_arguments, default_method
from scdeconv.tl._tuning import fit_or_tune

from .match_types import CommonTypes, match_types
from .prepare import (
    read_cohort,
    repeated_samples,
    same_unit,
    shared_genes,
    shift_genes,
    without_training_donors,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scdeconv.models import DeconvolutionModel, Method, MethodLike

TITLE = "The cohorts cannot be compared"


@dataclass(frozen=True)
class OtherCohort:
    """Test samples with measured shares of the common cell types.

    Parameters
    ----------
    bulk
        Samples × genes.
    aligned
        The samples with the gene shifts of :func:`shift_genes`, if the units of both cohorts differ; else as ``bulk``.
    truth
        Samples × common types, rows sum to 1.
    training_mean
        Mean shares of the training cohort, length common types; NaN if unknown.
    types
        The common types.
    """

    bulk: AnnData
    aligned: AnnData
    truth: pd.DataFrame
    training_mean: np.ndarray
    types: CommonTypes

    def bulk_for(self, record: Method) -> AnnData:
        """Return the samples for a method: aligned with the training bulk if it learns from it."""
        return self.aligned if record.learns_from_pairs else self.bulk

    def score(self, model: DeconvolutionModel, predicted: pd.DataFrame) -> pd.DataFrame:
        """Return all metrics of predictions by cell type, with coverage and width of the prediction intervals."""
        estimate = self.types.shares(predicted.loc[self.truth.index], self.types.training)
        failed = estimate.isna().any(axis=1)
        if failed.any():
            warn(
                f"{int(failed.sum())} test samples have no estimate and are ignored: {examples(estimate.index[failed])}."
            )
        table = metrics.table(self.truth[~failed], estimate[~failed])
        return table.join(self._intervals(model))

    def score_constant(self, composition: np.ndarray) -> pd.DataFrame:
        """Return all metrics of the same composition for each sample."""
        constant = pd.DataFrame([composition] * len(self.truth), self.truth.index, self.truth.columns)
        return metrics.table(self.truth, constant)

    def _intervals(self, model: DeconvolutionModel) -> pd.DataFrame:
        """Return coverage and width of 90 % intervals; NaN without them, or if cohorts have types of their own."""
        rows = [*self.truth.columns, "all entries", "mean of types"]
        held_out = model.held_out_
        if held_out is None or held_out.widest_coverage() < COVERAGE or not self.types.complete:
            return pd.DataFrame(np.nan, rows, ["coverage", "width"])
        bulk = self.bulk_for(model.record)
        found = model.estimate(bulk, coverage=COVERAGE, in_sample=True, groups=self.types.training)
        lower, upper = (
            found[f"by_level_{side}"].loc[self.truth.index, self.truth.columns] for side in ("lower", "upper")
        )
        inside = ((lower <= self.truth) & (self.truth <= upper)).mean()
        scores = pd.DataFrame({"coverage": inside, "width": (upper - lower).mean()})
        return pd.concat([scores, pd.DataFrame([scores.mean()] * 2, index=rows[-2:])])


def prepare_cohorts(
    mdata: MuData, other: AnnData | MuData, groups: Mapping[str, Sequence[str]] | None
) -> tuple[MuData, OtherCohort]:
    """Return training data with the shared genes, and the test cohort in their unit."""
    bulk, unit = read_cohort(other)
    training, records = mdata[keys.BULK], mdata.uns.get(keys.UNS, {})
    types = cell_types_of(mdata)
    problems = Problems(TITLE)
    common = match_types(problems, types, bulk.obsm[keys.MEASURED].columns, groups)
    problems.raise_if_any()
    genes = shared_genes(training, bulk)
    donors = {
        str(donor)
        for name in (keys.BULK, keys.SUMS, keys.PSEUDOBULK)
        if name in mdata.mod
        for donor in mdata[name].obs[keys.DONOR]
    }
    work = keep_genes(mdata, genes)
    bulk = without_training_donors(bulk, donors, repeated_samples(work[keys.BULK], bulk))
    trained_on = PairedData(mdata, genes).bulk_unit
    aligned = bulk if same_unit(trained_on, unit) else shift_genes(work[keys.BULK], bulk, (trained_on, unit))
    measured = training.obsm[keys.MEASURED]
    measured = measured[has_measured(measured)]
    mean = np.full(len(common.training), np.nan)
    if len(measured):
        completed = complete_fractions(measured, records.get("pair", {}).get("never_measured"))
        mean = common.shares(measured_shares(completed, types), common.training).mean().to_numpy()
    cohort = _with_truth(bulk, aligned, common, mean)
    print(f"{len(cohort.truth)} test samples; {common.describe()}; {len(genes)} shared genes")
    return work, cohort


def cohort_of_model(
    model: DeconvolutionModel, other: AnnData | MuData, groups: Mapping[str, Sequence[str]] | None
) -> OtherCohort:
    """Return the test cohort of a trained model."""
    bulk, unit = read_cohort(other)
    trained_on = model.training_.bulk_unit
    if unit in OTHER_UNITS.get(trained_on, ()):
        msg = (
            f"Expected test bulk in {trained_on}, the unit of the training bulk, found {unit}. Pass the paired training data "
            "instead of the model: tl.validate(mdata, other_bulk) aligns the genes of both cohorts."
        )
        raise ValueError(msg)
    problems = Problems(TITLE)
    common = match_types(problems, model.cell_types_, bulk.obsm[keys.MEASURED].columns, groups)
    problems.raise_if_any()
    held_out, samples = model.held_out_, model.training_.samples
    donors = set() if held_out is None else set(map(str, held_out.donors))
    repeated = np.zeros(bulk.n_obs, dtype=bool)
    if samples is not None:
        expression = read_genes(bulk, pd.Index(samples.genes), array=trained_on == ARRAY)
        repeated = samples.fingerprints.find(expression) >= 0
    mean = np.full(len(common.training), np.nan)
    if held_out is not None:
        measured = pd.DataFrame(held_out.measured, columns=model.cell_types_)
        mean = common.shares(measured, common.training).mean().to_numpy()
    bulk = without_training_donors(bulk, donors, repeated)
    cohort = _with_truth(bulk, bulk, common, mean)
    print(f"{len(cohort.truth)} test samples; {common.describe()}")
    return cohort


def _with_truth(bulk: AnnData, aligned: AnnData, common: CommonTypes, mean: np.ndarray) -> OtherCohort:
    """Return the test cohort of the samples that have all common types."""
    shares = common.shares(bulk.obsm[keys.MEASURED], common.test)
    truth = shares.dropna()
    if truth.empty:
        msg = (
            f"Expected test samples with measured fractions of {examples(common.test, n=len(common.test))}, found none in "
            f"{bulk.n_obs} samples. Name other types with groups=."
        )
        raise ValueError(msg)
    if len(truth) < len(shares):
        warn(
            f"Left out {len(shares) - len(truth)} of {len(shares)} test samples, in which common types were not measured or are "
            f"all 0: {examples(shares.index.difference(truth.index, sort=False))}. To keep them, drop columns with NaN."
        )
    return OtherCohort(bulk, aligned, truth, mean, common)


def score_other_cohort(
    training: MuData,
    method: MethodLike,
    cohort: OtherCohort,
    *,
    seed: int = 0,
    tune: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> pd.DataFrame:
    """Return all metrics, as shares of cells, of a method on the test cohort.

    Parameters
    ----------
    training, cohort
        Result of :func:`prepare_cohorts`.
    method, seed, tune, **kwargs
        As for :func:`scdeconv.tl.cross_validate`.
    """
    model = fit_or_tune(training, method, {"seed": seed, **kwargs}, tune, seed, **kwargs)
    return cohort.score(model, predict_unseen(model, training, cohort.bulk_for(model.record)))


@checked()
def validate(
    model_or_mdata: DeconvolutionModel | MuData,
    other_bulk: AnnData | MuData,
    *,
    method: MethodLike | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    **kwargs: Any,
) -> pd.DataFrame:
    """Test a model, or a method trained on one cohort, on another cohort with its own measured fractions.

    Cell types that both cohorts have are found by name; finer types are added up. Both sides are compared as shares of
    these types, and a printed line names them. Test samples of training donors, recognised by donor names and by
    expression, are left out with a warning.

    Parameters
    ----------
    model_or_mdata
        Training cohort from :func:`scdeconv.pp.pair`, or a trained model. With paired data, the method is trained on the
        genes that both cohorts share. If the bulk of both has different units or platforms (counts, TPM, arrays), methods
        that learn from bulk get a test cohort whose mean log expression of each gene is that of the training cohort.
        Trained models refuse such bulk.
    other_bulk
        Test cohort: bulk samples × genes with ``obsm["measured_fractions"]`` and, if sample names are not donor names,
        ``obs["donor"]``. For log2 array intensities and other special cases, pass the result of
        ``pp.pair(bulk=other_bulk, unit="array")``.
    method
        Method to train on paired data, as for :func:`scdeconv.tl.train`. Default: :func:`scdeconv.tl.default_method`.
    groups
        Cell types of either cohort to add up, by the name of the common type:
        ``{"DC": ["DC", "mDC", "pDC"]}``. Other types are found by name.
    **kwargs
        Arguments of the method, as for :func:`scdeconv.tl.train`.

    Returns
    -------
    One row per common cell type, then "all entries" (pooled over types) and "mean of types". The columns of
    :func:`scdeconv.metrics.table`; ``coverage`` and ``width`` of 90 % prediction intervals (NaN without intervals, or if a
    cohort has further types); ``rmse_training_mean``, the RMSE of the mean composition of the training cohort (NaN if
    unknown); and ``rmse_mean_composition``, that of the mean composition of the test cohort in hindsight, which no method
    knows.

    Raises
    ------
    ValueError
        If the test cohort has problems (percent, counts, log values, other gene names), if fewer than two cell types are
        common, if all test samples are of training donors, or if a model was trained on bulk in another unit.
    TypeError
        If arguments of a method are passed with a trained model.

    Warns
    -----
    UserWarning
        If test samples are left out, if the cohorts share few genes, or if a model estimates RNA fractions.

    Examples
    --------
    >>> import scdeconv
    >>> cells, bulk = scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    >>> other = scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100), seed=1)[1]
    >>> other.obs["donor"] = "B_" + other.obs["donor"].astype(str)
    >>> other.obsm["measured_fractions"] = other.obsm["true_fractions"]
    >>> mdata = scdeconv.pp.pair(cells, bulk)  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> table = scdeconv.tl.validate(mdata, other, method="ridge")  # doctest: +ELLIPSIS
    12 test samples; 7 common cell types ...
    >>> list(table.columns[-2:])
    ['rmse_training_mean', 'rmse_mean_composition']
    """
    if isinstance(model_or_mdata, MuData):
        chosen = default_method(model_or_mdata) if method is None else method
        check_method_arguments(chosen, kwargs, validate)
        training, cohort = prepare_cohorts(model_or_mdata, other_bulk, groups)
        table = score_other_cohort(training, chosen, cohort, **kwargs)
    else:
        if method is not None or kwargs:
            msg = (
                f"Expected no method and no arguments with a trained model, found {sorted([*kwargs, *(['method'] if method else [])])}. "
                "Pass paired data to train a method."
            )
            raise TypeError(msg)
        model, cohort = model_or_mdata, cohort_of_model(model_or_mdata, other_bulk, groups)
        if model.fraction_kind == "rna":
            warn(
                f"Expected a method of cell fractions, found {model.method!r}, which estimates RNA fractions. Pass paired data: "
                "they are then converted."
            )
        table = cohort.score(model, model.predict(cohort.bulk, in_sample=True))
    of_mean = cohort.truth.mean().to_numpy()
    known = np.isfinite(cohort.training_mean).all()
    table["rmse_training_mean"] = cohort.score_constant(cohort.training_mean)["rmse"] if known else np.nan
    table["rmse_mean_composition"] = cohort.score_constant(of_mean)["rmse"]
    return table
