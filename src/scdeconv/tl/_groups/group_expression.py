"""Mean expression profile of each cell type in a group of samples, from bulk and fractions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, t

from scdeconv._data import keys
from scdeconv._data.annotated import make_adata
from scdeconv._data.checks import Problems, checked, whole
from scdeconv._data.progress import progress
from scdeconv._stats.expression import to_shares
from scdeconv._stats.type_expression.profiles import (
    ERROR_RATE,
    SOLVER_ERROR,
    geometric_cv,
    noise_threshold,
    regress_on_fractions,
    standard_errors,
)

from .mixtures import read_mixtures

if TYPE_CHECKING:
    from anndata import AnnData

MILLION = 1e6


@checked(n_samples=whole(2))
def group_expression(
    adata: AnnData,
    key: str = keys.FRACTIONS,
    *,
    layer: str | None = None,
    n_samples: int = 30,
    share: float = 0.5,
    seed: int = 0,
) -> AnnData:
    """Estimate one expression profile of each cell type for a group of bulk samples.

    Group mode of CIBERSORTx (Newman et al. 2019, Nature Biotechnology 37:773). The bulk expression of each gene in
    counts per million is regressed on the fractions by non-negative least squares. Standard errors come from the
    residuals. Random halves of the samples show the stability of the coefficients. To compare groups, use
    :func:`scdeconv.tl.differential_expression`.

    Parameters
    ----------
    adata
        Bulk samples × genes, counts or TPM, of one group (one condition, one tissue).
    key
        Key of ``obsm`` with the fractions, from :func:`scdeconv.tl.predict` or measured. Samples without fractions are
        ignored. With RNA fractions, the coefficients are counts per million of the type. With cell fractions, they are
        counts per million of the bulk: larger for types with more RNA, and approximate, because the total of a sample
        depends on its composition. See :func:`scdeconv.tl.convert_fractions`.
    layer
        Layer to read instead of ``X``.
    n_samples
        Number of random subsets of the samples.
    share
        Share of the samples in a subset. The variance between halves equals the variance of the estimate from all
        samples.
    seed
        Seed of the subsets.

    Returns
    -------
    Cell types × genes: ``X``, the coefficients in counts per million, and the layers

    - ``standard_error``;
    - ``p_value``: one-sided t-test against zero, and ``q_value``: Benjamini-Hochberg over the genes of a type;
    - ``geometric_cv``: geometric coefficient of variation between the subsets; infinite if a subset has zero;
    - ``reliable`` (bool): q-value below 0.05 and ``geometric_cv`` at most the noise threshold of the type,
      ``obs["cv_threshold"]``. At most 5 % of the genes with a ``geometric_cv`` up to the threshold have a higher
      q-value.

    Raises
    ------
    KeyError
        If ``adata.obsm[key]`` is missing.
    ValueError
        If a subset does not have more samples than cell types, an argument is out of range, fractions do not sum to 1
        or are collinear, or values are not linear expression.

    Warns
    -----
    UserWarning
        If samples have no fractions, or the fit of a model that was trained on them. If names of genes are repeated.

    Notes
    -----
    Standard errors, subset size and noise threshold of the original are not public. The definitions above were chosen
    for this library.

    Examples
    --------
    >>> import scdeconv
    >>> cells, bulk = scdeconv.datasets.paired_cohort(n_donors=24, n_genes=300, cells_per_donor=(50, 100))
    >>> profiles = scdeconv.tl.group_expression(bulk, "true_fractions")
    >>> profiles.shape, profiles.layers["reliable"].dtype
    ((7, 300), dtype('bool'))
    """
    table, expression, _ = read_mixtures(
        Problems("The expression of cell types cannot be estimated"), adata, key, layer
    )
    fractions, bulk = table.to_numpy(), MILLION * to_shares(expression)
    n_all, n_types = fractions.shape
    size = round(share * n_all)
    if size <= n_types:
        msg = (
            f"Expected more samples in a subset than cell types, found {n_all} samples ({size} in a subset) and "
            f"{n_types} types. Add samples or merge similar types."
        )
        raise ValueError(msg)
    if np.linalg.matrix_rank(fractions) < n_types:
        absent = list(table.columns[np.asarray(~fractions.any(axis=0))])
        found = f"only zeros for {absent}" if absent else "collinear fractions"
        msg = f"Expected linearly independent fractions of the cell types, found {found}. Drop or merge types."
        raise ValueError(msg)
    coefficients = regress_on_fractions(fractions, bulk)
    coefficients[coefficients * fractions.max(axis=0)[:, None] <= SOLVER_ERROR * bulk.max(axis=0)] = 0
    errors = standard_errors(fractions, bulk, coefficients)
    subsampled, rng = np.empty((n_samples, *coefficients.shape)), np.random.default_rng(seed)
    with progress(n_samples, "regression on fractions") as bar:
        for number in range(n_samples):
            rows = rng.choice(n_all, size, replace=False)
            subsampled[number] = regress_on_fractions(fractions[rows], bulk[rows])
            bar.update()
    statistic = np.divide(coefficients, errors, out=np.zeros_like(errors), where=errors > 0)
    statistic[(errors == 0) & (coefficients > 0)] = np.inf
    # no evidence against zero
    p_value = np.where(coefficients > 0, t.sf(statistic, n_all - n_types), 1.0)
    q_value, cv = false_discovery_control(p_value, axis=1), geometric_cv(subsampled)
    significant = q_value < ERROR_RATE
    threshold = np.array([noise_threshold(*rows) for rows in zip(cv, significant, strict=True)])
    layers = {"standard_error": errors, "p_value": p_value, "q_value": q_value, "geometric_cv": cv}
    result = make_adata(
        coefficients,
        obs=pd.DataFrame({keys.CELL_TYPE: list(table.columns), "cv_threshold": threshold}, index=list(table.columns)),
        var=adata.var[[]].copy(),
        layers={**layers, "reliable": significant & (cv <= threshold[:, None])},
    )
    kind = adata.uns.get(keys.UNS, {}).get(key, {}).get("fraction_kind", "cell")
    result.uns[keys.UNS] = {
        "group_expression": {
            "key": key,
            "fraction_kind": kind,
            "n_bulk_samples": n_all,
            "n_samples": n_samples,
            "share": share,
            "seed": seed,
        }
    }
    return result
