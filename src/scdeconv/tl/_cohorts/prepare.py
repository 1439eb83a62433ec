"""The test cohort: samples that the training does not have, in the unit of the training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from mudata import MuData

from scdeconv._data import keys
from scdeconv._data.annotated import subset
from scdeconv._data.checks import Problems, check_shared_genes, examples
from scdeconv._data.fractions import has_measured
from scdeconv._data.gene_names import Genes
from scdeconv._data.matrix import to_dense
from scdeconv._data.units import ARRAY, COUNTS, OTHER_UNITS
from scdeconv._data.warnings import warn
from scdeconv._stats.expression import log_shares
from scdeconv._stats.recognition.fingerprint import Fingerprints, most_expressed
from scdeconv.models import PairedData
from scdeconv.pp import join

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

# minimum number of test samples from which the gene shifts to another unit are estimated; set by hand
MIN_SAMPLES_TO_SHIFT = 3
# number of genes of the test bulk relative to the training bulk below which it is reported; set by hand
MIN_GENE_SHARE = 0.5


def read_cohort(other: AnnData | MuData) -> tuple[AnnData, str]:
    """Return the measured bulk samples of a test cohort, checked as by ``pp.pair``, and their unit."""
    if not isinstance(other, MuData):
        try:
            other = join({"bulk": other})
        except ValueError as error:
            msg = f"Expected a test cohort that pp.pair accepts, found: {error} Or pass pp.pair(bulk=..., unit=...)."
            raise ValueError(msg) from error
    bulk = other[keys.BULK]
    return subset(bulk, has_measured(bulk.obsm[keys.MEASURED])), PairedData(other, bulk.var_names).bulk_unit


def without_training_donors(bulk: AnnData, donors: set[str], repeated: np.ndarray) -> AnnData:
    """Return test samples of new donors; warn about others.

    Parameters
    ----------
    bulk
        Test samples with ``obs["donor"]``.
    donors
        Donors of the training cohort.
    repeated
        Mask of the test samples whose expression is that of a training sample.
    """
    known = bulk.obs[keys.DONOR].astype(str).isin(donors).to_numpy()
    out = known | repeated
    if out.all():
        msg = (
            f"Expected test samples of donors that are not in the training cohort, found none in {len(out)} samples: "
            f"{int(known.sum())} have the name of a training donor, {int(repeated.sum())} have the expression of a "
            "training sample. If they are other people, rename the donors in obs['donor']."
        )
        raise ValueError(msg)
    if out.any():
        warn(
            f"Left out {int(out.sum())} of {len(out)} test samples of training donors (equal names: {int(known.sum())}, "
            f"equal expression: {int(repeated.sum())}): {examples(bulk.obs_names[out])}. If equal names are other "
            "people, rename the donors in obs['donor']."
        )
    return subset(bulk, ~out)


def shared_genes(training: AnnData, test: AnnData) -> pd.Index:
    """Return the genes of both cohorts; raise ``ValueError`` for few."""
    problems = Problems("The cohorts cannot be compared")
    check_shared_genes(
        problems,
        Genes("the training bulk", training.var_names, training),
        [Genes("the test bulk", test.var_names, test)],
    )
    problems.raise_if_any()
    if test.n_vars < MIN_GENE_SHARE * training.n_vars:
        warn(
            f"Expected most of the {training.n_vars} genes of the training bulk in the test bulk, found {test.n_vars} genes. "
            "Methods are trained on the shared genes only and may be less accurate. Use test bulk with more genes."
        )
    return training.var_names[training.var_names.isin(test.var_names)]


def repeated_samples(training: AnnData, test: AnnData) -> np.ndarray:
    """Return a mask of the test samples with the expression of a training sample; both have the same genes."""
    first, second = (to_dense(subset(adata, genes=training.var_names).X).astype(float) for adata in (training, test))
    used = most_expressed(first)
    mask: np.ndarray = Fingerprints.of(first[:, used]).find(second[:, used]) >= 0
    return mask


def same_unit(unit: str, other: str) -> bool:
    """Return whether two units need no gene shifts. Estimated counts may be TPM of some genes: they fit both."""
    differ = other in OTHER_UNITS.get(unit, ()) or unit in OTHER_UNITS.get(other, ()) or ARRAY in (unit, other)
    return unit == other or not differ


def shift_genes(training: AnnData, test: AnnData, units: tuple[str, str]) -> AnnData:
    """Return test samples whose mean log expression of each gene is that of the training samples.

    This removes gene effects of another platform or unit, such as array against RNA-seq. It also removes the effect of
    different mean compositions. Measured fractions are not used.

    Parameters
    ----------
    training, test
        Samples with the same genes.
    units
        Units of both.
    """
    if test.n_obs < MIN_SAMPLES_TO_SHIFT:
        msg = (
            f"Expected a test cohort in {units[0]}, the unit of the training bulk, or at least {MIN_SAMPLES_TO_SHIFT} test "
            f"samples to learn the gene shifts from, found {test.n_obs} samples in {units[1]}. Use bulk in the same unit."
        )
        raise ValueError(msg)
    expression = to_dense(subset(test, genes=training.var_names).X).astype(float)
    logs = [log_shares(to_dense(training.X).astype(float)), log_shares(expression)]
    shifted = np.expm1(np.maximum(logs[1] + logs[0].mean(axis=0) - logs[1].mean(axis=0), 0))
    totals = np.maximum(shifted.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    moved = subset(test, genes=test.var_names.get_indexer(training.var_names))
    scaled = shifted / totals * np.median(to_dense(training.X).sum(axis=1))
    # counts are whole numbers
    moved.X = np.rint(scaled) if units[0] == COUNTS else scaled
    moved.uns.clear()
    print(
        f"the test bulk is in {units[1]}, the training bulk in {units[0]}: mean log expression of each gene aligned for methods "
        "that learn from bulk"
    )
    return moved
