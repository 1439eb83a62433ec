"""Training record of a deconvolution model, and recognition of its training samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdeconv._data.annotated import values_of
from scdeconv._data.chunks import first_rows
from scdeconv._data.gene_names import strip_versions
from scdeconv._data.genes import read_genes
from scdeconv._data.units import ARRAY, OTHER_UNITS, unit_of
from scdeconv._data.warnings import warn
from scdeconv._stats.conformal import HeldOut
from scdeconv._stats.recognition.familiarity import Familiarity
from scdeconv._stats.recognition.fingerprint import Fingerprints, most_expressed
from scdeconv.io import TrainingRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from scdeconv._data.matrix import Matrix

# number of samples read to infer the unit; set by hand
UNIT_CHECK_ROWS = 100
NEW, OUT_OF_FOLD, IN_SAMPLE = "new", "out-of-fold", "in-sample"


@dataclass(frozen=True)
class TrainingSamples:
    """Fingerprints of the training samples and their rows in the out-of-fold predictions.

    Parameters
    ----------
    genes
        Genes of the fingerprints.
    fingerprints
        Fingerprints of the training samples.
    held_out_row
        Row of each training sample in the out-of-fold predictions; -1 if it was never held out.
    """

    genes: list[str]
    fingerprints: Fingerprints
    held_out_row: np.ndarray

    @classmethod
    def of(
        cls, bulk: AnnData, genes: pd.Index, rows: np.ndarray, held_out_rows: Sequence[int] | np.ndarray = ()
    ) -> TrainingSamples:
        """Remember training samples.

        Parameters
        ----------
        bulk
            Samples × genes.
        genes
            Genes of the model, which new data must have. All genes are used if the model reads none.
        rows
            Mask or positions of the training samples.
        held_out_rows
            Training sample of each row of the out-of-fold predictions.
        """
        names = genes if len(genes) else bulk.var_names
        expression = values_of(bulk, rows, names)
        row_of = np.full(len(expression), -1)
        row_of[np.asarray(held_out_rows, dtype=int)] = np.arange(len(held_out_rows))
        used = most_expressed(expression)
        return cls(list(strip_versions(names[used])), Fingerprints.of(expression[:, used]), row_of)

    def check(self, n_held_out: int) -> None:
        """Raise an error if genes, fingerprints and rows do not fit each other."""
        self.fingerprints.find(np.ones((1, len(self.genes))))
        if self.held_out_row.shape != (len(self.fingerprints.codes),) or (self.held_out_row >= n_held_out).any():
            msg = f"{len(self.held_out_row)} rows of {n_held_out} out-of-fold predictions"
            raise ValueError(msg)

    def find(self, expression: np.ndarray, *, in_sample: bool) -> tuple[np.ndarray, np.ndarray]:
        """Find training samples among samples to predict.

        Parameters
        ----------
        expression
            Samples × :attr:`genes`; missing genes are NaN.
        in_sample
            Use the fit for all training samples.

        Returns
        -------
        source
            ``"new"``, ``"out-of-fold"`` or ``"in-sample"`` for each sample.
        row
            Row in the out-of-fold predictions, for the samples with the source ``"out-of-fold"``; else -1.
        """
        sample = self.fingerprints.find(expression)
        row = np.where((sample >= 0) & (not in_sample), self.held_out_row[sample], -1)
        return np.where(row >= 0, OUT_OF_FOLD, np.where(sample >= 0, IN_SAMPLE, NEW)), row


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
    samples
        Fingerprints of the training samples; None for methods that do not learn from measured fractions.
    library_size
        Median number of reads of the training bulk in the model's genes; None if unknown or not counts.
    levels
        Cell types of each level of the hierarchy of :func:`scdeconv.pp.pair`; None without hierarchy.
    """

    cell_types: list[str]
    bulk_unit: str | None = None
    held_out: HeldOut | None = None
    familiarity: Familiarity | None = None
    samples: TrainingSamples | None = None
    library_size: float | None = None
    levels: dict[str, list[str]] | None = None


def warn_of_other_unit(bulk: Matrix, trained_on: str | None) -> None:
    """Warn about bulk in another unit than the training bulk."""
    found = unit_of(first_rows(bulk)[:UNIT_CHECK_ROWS])
    if found in OTHER_UNITS.get(trained_on, ()):
        warn(
            f"Expected {trained_on} in adata, the unit of the training bulk, found {found}. Estimates may be "
            f"wrong. Pass bulk samples in {trained_on}, or pair and train with bulk in {found}."
        )


def replace_fit(
    training: DeconvolutionRecord, adata: AnnData, layer: str | None, fractions: np.ndarray, *, in_sample: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return fractions with out-of-fold predictions of the training samples, and source and row of each sample.

    Rows are those of the out-of-fold predictions; -1 for all samples without.
    """
    source, row = np.full(len(fractions), NEW, dtype=object), np.full(len(fractions), -1)
    samples = training.samples
    if samples is not None:
        genes = pd.Index(samples.genes)
        expression = read_genes(adata, genes, layer=layer, array=training.bulk_unit == ARRAY)
        source, row = samples.find(expression, in_sample=in_sample)
    if training.held_out is not None and (row >= 0).any():
        fractions = np.where((row >= 0)[:, None], training.held_out.predicted[row], fractions)
    return fractions, source, row


def source_table(source: np.ndarray, samples: pd.Index) -> dict[str, pd.DataFrame]:
    """Return the source of each sample as the table ``source``; no table if all samples are new."""
    return {"source": pd.DataFrame({"source": source}, index=samples)} if (source != NEW).any() else {}
