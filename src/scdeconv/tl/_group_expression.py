"""Mean expression profile of each cell type in a group of samples, from bulk and fractions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, t

from scdeconv._data import keys
from scdeconv._data.annotated import make_adata
from scdeconv._data.checks import Problems, check_cell_type_names, check_expression, check_fractions, checked, whole
from scdeconv._data.matrix import get_matrix, to_dense
from scdeconv._data.progress import progress
from scdeconv._stats.expression import to_shares
from scdeconv.models import solve_nonnegative

if TYPE_CHECKING:
    from anndata import AnnData

MILLION = 1e6
# numerical error of the solver relative to the maximum of a gene: smaller coefficients are set to zero
SOLVER_ERROR = 1e-9
# maximum q-value of significant genes, and maximum share of other genes below the noise threshold; set by hand
ERROR_RATE = 0.05


def regress_on_fractions(fractions: np.ndarray, bulk: np.ndarray) -> np.ndarray:
    """Regress the bulk expression of each gene on the fractions by non-negative least squares.

    Parameters
    ----------
    fractions
        Samples × cell types.
    bulk
        Samples × genes.

    Returns
    -------
    Coefficients, cell types × genes.
    """
    return solve_nonnegative(fractions.T @ fractions, bulk.T @ fractions).T


def standard_errors(fractions: np.ndarray, bulk: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Return the least-squares standard errors of the coefficients, cell types × genes.

    The residual variance has (samples - cell types) degrees of freedom, also if coefficients are constrained to zero.
    """
    residual = bulk - fractions @ coefficients
    residual = np.where(np.abs(residual) <= SOLVER_ERROR * bulk.max(axis=0), 0.0, residual)
    residual = (residual**2).sum(axis=0) / (len(bulk) - fractions.shape[1])
    return np.sqrt(np.diag(np.linalg.inv(fractions.T @ fractions))[:, None] * residual)


def geometric_cv(subsampled: np.ndarray) -> np.ndarray:
    """Return ``sqrt(exp(variance of the logs) - 1)`` over the first axis; infinite if a coefficient is zero."""
    positive = (subsampled > 0).all(axis=0)
    logs = np.log(np.where(positive, subsampled, 1))
    return np.where(positive, np.sqrt(np.expm1(logs.var(axis=0, ddof=1))), np.inf)


def noise_threshold(cv: np.ndarray, significant: np.ndarray) -> float:
    """Return the largest coefficient of variation with at most 5 % non-significant genes at or below it."""
    order = np.argsort(cv, kind="stable")
    share = np.cumsum(~significant[order]) / np.arange(1, len(cv) + 1)
    passing = order[(share <= ERROR_RATE) & np.isfinite(cv[order])]
    return float(cv[passing].max(initial=0.0))


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
    residuals. Random halves of the samples show the stability of the coefficients.

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
    if key not in adata.obsm:
        msg = f"Expected adata.obsm[{key!r}], found keys {sorted(adata.obsm)}. Call tl.predict first."
        raise KeyError(msg)
    table, matrix = adata.obsm[key], get_matrix(adata, layer, "adata")
    problems = Problems("The expression of cell types cannot be estimated")
    check_fractions(problems, table, f"adata.obsm[{key!r}]")
    if isinstance(table, pd.DataFrame):
        check_cell_type_names(problems, table.columns, f"adata.obsm[{key!r}]")
    check_expression(problems, adata, matrix, "adata", logged="log1p" in adata.uns and layer is None)
    problems.raise_if_any()
    known = table.notna().all(axis=1).to_numpy()
    fractions, bulk = table.to_numpy(dtype=float)[known], MILLION * to_shares(to_dense(matrix[known]))
    n_all, n_types = fractions.shape
    size = round(share * n_all)
    if size <= n_types:
        msg = (
            f"Expected more samples in a subset than cell types, found {n_all} samples ({size} in a subset) and "
            f"{n_types} types. Add samples or merge similar types."
        )
        raise ValueError(msg)
    if np.linalg.matrix_rank(fractions) < n_types:
        absent = list(table.columns[~fractions.any(axis=0)])
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
