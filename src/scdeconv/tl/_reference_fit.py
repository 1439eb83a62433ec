"""Check of a reference against bulk, before any estimate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from scdeconv._data import keys
from scdeconv._data.checks import checked
from scdeconv._data.gene_names import strip_versions
from scdeconv._data.modalities import check_reference
from scdeconv._data.warnings import warn
from scdeconv._stats.recognition.reference_fit import LARGE_SHARE, MAX_FOLD, compare_with_fit
from scdeconv._version import __version__
from scdeconv.datasets import platform_shift_prior
from scdeconv.models import PairedData, RobustNNLS

if TYPE_CHECKING:
    from mudata import MuData


# genes in the printed line
N_NAMED = 8


@checked()
def reference_fit(
    mdata: MuData,
    *,
    platform_prior: Literal["10x 3'", "10x 3' nuclei"] | None = "10x 3'",
    key_added: str = keys.REFERENCE_FIT,
) -> None:
    """Check which genes and samples of the bulk a reference does not explain.

    Each bulk sample is fitted with the profiles of the reference (:class:`scdeconv.models.RobustNNLS`, all shared genes).
    Bulk expression far above the fit has no source in the reference: a cell type is missing, or the tissue is another
    one. Fractions are not needed. :func:`scdeconv.pl.reference_fit` draws the result.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`, with cells or profiles.
    platform_prior
        Protocol of the cells, as for :class:`scdeconv.models.RobustNNLS`. Its known shifts between cells and bulk are part
        of the fit. None: no known shifts.
    key_added
        Key of the results.

    Writes
    ------
    ``mdata["bulk"].varm[key_added]``
        DataFrame of genes: ``symbol`` (of common human Ensembl identifiers; else the name), ``bulk`` and ``fit`` (mean,
        counts per million of the shared genes), ``log2_ratio`` (median over samples of bulk to fit), ``variation`` (SD of
        this ratio over samples), ``unexplained`` (more than 8 times the fit).
        Markers of a missing cell type have the highest ratios.
    ``mdata["bulk"].obsm[key_added]``
        DataFrame of samples: ``unexplained`` (share of the expression in genes with more than 8 times the fit in this
        sample), ``correlation`` (of log expression in bulk and fit, over genes). NaN for samples without reads.
    ``mdata["bulk"].uns["scdeconv"][key_added]``
        Version, prior, cell types, numbers of genes and samples.

    Raises
    ------
    ValueError
        If ``mdata`` has no reference, or no sample with reads.

    Warns
    -----
    UserWarning
        If the median over samples of ``unexplained`` is above 0.15. In the benchmark, references of the right tissue are
        below 0.11 and references of another tissue above 0.15.

    Notes
    -----
    A rare type that is missing changes little. The absence of a finding is no proof that the reference is complete. See
    the benchmark :doc:`/benchmarks/reference_fit` for what is found and what is not.

    Examples
    --------
    >>> import scdeconv
    >>> cells, bulk = scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    >>> mdata = scdeconv.pp.pair(cells, bulk)  # doctest: +ELLIPSIS
    paired ...
    >>> scdeconv.tl.reference_fit(mdata)  # doctest: +ELLIPSIS
    reference_fit: 12 samples, 300 genes, 7 cell types; ...
    >>> list(mdata["bulk"].obsm["reference_fit"])
    ['unexplained', 'correlation']
    """
    check_reference(mdata, "tl.reference_fit")
    bulk = mdata[keys.BULK]
    data = PairedData(mdata, bulk.var_names)
    expression = data.bulk()
    with_reads = expression.sum(axis=1) > 0
    if not with_reads.any():
        msg = f"Expected bulk samples with reads, found none of {len(expression)}. Check mdata['bulk'].X."
        raise ValueError(msg)
    state = RobustNNLS(platform_prior=platform_prior).fit(data)
    expression = expression[with_reads]
    found = compare_with_fit(expression, state.predict(expression) @ state.shift.applied(state.signature))
    genes = pd.DataFrame(
        {
            "symbol": _symbols(bulk.var_names),
            "bulk": found.bulk,
            "fit": found.fit,
            "log2_ratio": found.log2_ratio,
            "variation": found.variation,
            "unexplained": found.log2_ratio > np.log2(MAX_FOLD),
        },
        bulk.var_names,
    )
    measures = pd.DataFrame(
        {"unexplained": found.unexplained, "correlation": found.correlation}, bulk.obs_names[with_reads]
    )
    samples = measures.reindex(bulk.obs_names)
    bulk.varm[key_added], bulk.obsm[key_added] = genes, samples
    bulk.uns.setdefault(keys.UNS, {})[key_added] = {
        "version": __version__,
        "platform_prior": platform_prior or "",
        "cell_types": data.cell_types,
        "n_genes": len(genes),
        "n_samples": int(with_reads.sum()),
    }
    share, correlation = samples.median()
    highest = ", ".join(genes.sort_values("log2_ratio", ascending=False)["symbol"][:N_NAMED])
    text = (
        f"{share:.1%} of the expression (median over samples) is in genes above {MAX_FOLD:g} times the fit, correlation with the fit "
        f"{correlation:.2f}; genes with the highest ratio: {highest}"
    )
    print(f"reference_fit: {with_reads.sum()} samples, {len(genes)} genes, {len(data.cell_types)} cell types; {text}")
    if share > LARGE_SHARE:
        warn(
            f"Expected a reference that explains the bulk, found {share:.0%} of the expression in genes with more than {MAX_FOLD:g} times "
            "the fit. The reference is of another tissue or protocol, or a frequent cell type is missing. See "
            "pl.reference_fit."
        )


def _symbols(names: pd.Index) -> list[str]:
    """Return the symbols of Ensembl identifiers that are in the table of platform shifts; else the names."""
    prior = platform_shift_prior()
    known = dict(zip(prior["gene_id"], prior.index, strict=True))
    return [str(known.get(name, name)) for name in strip_versions(names)]
