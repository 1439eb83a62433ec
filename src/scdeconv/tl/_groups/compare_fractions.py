"""Comparison of the composition between groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdeconv._data import keys
from scdeconv._data.annotated import write_record
from scdeconv._data.checks import Problems, check_key_added, checked, examples
from scdeconv._data.labels import as_labels
from scdeconv._data.warnings import warn
from scdeconv._process import one_blas_thread
from scdeconv._stats.group_tests.cluster_robust import LinearModel, Tests
from scdeconv._stats.group_tests.log_ratios import (
    PSEUDO_FRACTION,
    adjust_p_values,
    compare_log_ratios,
    errors_of_logs,
    logs_of_fractions,
)
from scdeconv._version import __version__

from .design import block_donors, check_complete, make_design
from .errors import error_variances
from .samples import read_fractions, warn_of_samples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from .design import Design

# one cell of 1,000, twice of what is added: below it, log-ratios are those of what is added
LIMIT = 2 * PSEUDO_FRACTION
TITLE = "The composition cannot be compared"
# how samples of a donor were treated
INDEPENDENT, BLOCKS, INTERCEPTS = "independent samples", "donors as blocks", "random intercept of donors"


@checked()
def compare_fractions(
    adata: AnnData,
    group: str,
    *,
    covariates: Sequence[str] = (),
    paired_by: str | None = None,
    key: str = keys.FRACTIONS,
    key_added: str = keys.COMPARED,
) -> pd.DataFrame:
    r"""Test which cell types differ between groups, or change with a continuous variable.

    Fractions sum to 1, so if one type increases, all others decrease. The test uses log-ratios of each type to types that do
    not change. A difference of the log-ratios is a change *relative to these types*; bulk RNA-seq cannot show which absolute
    cell numbers changed.

    Parameters
    ----------
    adata
        Samples with fractions.
    group
        Column of ``adata.obs``. Numbers are continuous; text, categories, True and False are groups. The first category (of
        text: in alphabetical order) is the reference, to which the others are compared.
    covariates
        Further columns of ``adata.obs`` in the model, continuous or categorical.
    paired_by
        Column of ``adata.obs`` with the donor of each sample, if donors have several samples. If the group differs between
        the samples of each donor, donors are blocks (as in a paired t-test); otherwise each has a random intercept.
    key
        Table of ``adata.obsm`` with the fractions: estimates, or measured fractions. With the prediction intervals of
        ``tl.predict(..., coverage=0.9)``, uncertain samples have less weight.
    key_added
        Key of the results.

    Returns
    -------
    Table with one row for each cell type and contrast, such as ``"patient - control"``:

    - ``effect``: difference of the log-ratios (natural logarithm), or slope for one unit of a continuous variable, with its
      standard error ``se`` and degrees of freedom ``df``;
    - ``p_value``, and ``q_value`` (false discovery rate over the cell types);
    - ``p_overall`` and ``q_overall``: joint test of all contrasts of the type (for two groups the same);
    - ``ratio``, ``ratio_lower``, ``ratio_upper``: the factor ``exp(effect)`` by which the type changes relative to the
      reference types, with its 95 % interval;
    - ``points``, ``points_lower``, ``points_upper``: difference of the fraction in percentage points, with its 95 % interval,
      to describe the change. It contains the opposite change of all types when one type changes;
    - ``in_reference`` (bool): whether the type is one of those that are taken as unchanged;
    - ``error_share``: share of the variance between samples that the prediction intervals explain. Near 1, the estimates of a
      type hardly differ more than their errors, and the effect is underestimated.

    Writes
    ------
    ``adata.uns["scdeconv"][key_added]``
        The arguments, the ``table``, ``n_samples``, ``groups`` and their ``group_sizes`` (empty for a continuous variable), how
        donors were treated (``donors``), the source of the errors (``errors``), and ``p_value`` of the test that no type
        differs (Cauchy combination of the types).

    Raises
    ------
    KeyError
        If ``adata.obsm[key]`` is missing.
    ValueError
        If columns of ``adata.obs`` are missing, incomplete, constant or collinear, a group has one sample, the fractions or
        their intervals have problems, or ``key_added`` has another result. All problems are in one message, and nothing is
        written.

    Warns
    -----
    UserWarning
        If samples have no estimate (NaN) or the fit of a model that was trained on them. If cell types are below 0.001 in
        most samples of every group; they are left out. If tests are NaN, because a type does not vary within the groups, or
        there are too few samples or donors. If two groups have nearly the same name.

    Notes
    -----
    *Zeros.* Half a cell of 1,000 is added to each type, which is the posterior mean of a count under the prior of Jeffreys.
    Types that are 0 in all samples, or below 0.001 in most samples of every group, are left out.

    *Reference.* At first, log-ratios are centred, i.e. relative to the geometric mean of all types. If a type increases by
    d, the centred log-ratios of k - 1 others then decrease by d / k. Therefore the type with the largest difference from the
    median type is left out of the mean as long as its false discovery rate is at most 5 %, and more than half of the types
    stay in the mean.

    *Model.* Generalised least squares with weights :math:`1 / (\tau^2 + v)` for the error variance v of the sample and the
    remaining variance :math:`\tau^2` (REML), which includes the random intercept of a donor. Errors that all samples share
    are not included. Standard errors are robust against unequal variances (CR2), and tests use Satterthwaite's degrees of
    freedom; see Pustejovsky and Tipton (2018). For two groups of equal size without errors, this is the t-test.

    References
    ----------
    Aitchison (1982), The statistical analysis of compositional data. Liu and Xie (2020), Cauchy combination test.
    Pustejovsky and Tipton (2018), Small-sample methods for cluster-robust variance estimation and hypothesis testing in fixed
    effects models.

    Examples
    --------
    >>> import scdeconv
    >>> _, bulk = scdeconv.datasets.paired_cohort(n_donors=12, n_genes=300, cells_per_donor=(50, 100))
    >>> bulk.obs["state"] = ["control"] * 9 + ["patient"] * 9
    >>> table = scdeconv.tl.compare_fractions(bulk, "state", key="true_fractions")
    >>> table[["cell_type", "contrast"]].iloc[0].tolist()
    ['Macrophage', 'patient - control']
    """
    problems = Problems(TITLE)
    check_key_added(problems, adata, key_added, "table")
    table = read_fractions(problems, adata, key)
    problems.raise_if_any()
    known = table.notna().all(axis=1).to_numpy()
    obs, fractions = adata.obs[known], table[known]
    design = make_design(problems, obs, group, covariates)
    absent, rare = _untestable(fractions, design)
    fractions = fractions.drop(columns=[*absent, *rare])
    if fractions.shape[1] < 2:
        problems.add(
            f"Expected at least 2 cell types in adata.obsm[{key!r}] that are not below {LIMIT:g} in most samples, found "
            f"{list(fractions)} in {len(fractions)} samples with fractions. Merge types with tl.merge_types, or use another key."
        )
    variances, source = error_variances(problems, adata, key, fractions, known)
    model, treatment = _model_of(problems, obs, design, paired_by)
    problems.raise_if_any()
    assert design is not None
    assert model is not None
    _report_left_out(adata, key, known, absent, rare)

    values, no_errors = fractions.to_numpy(), np.zeros(len(fractions))
    with one_blas_thread():
        found = compare_log_ratios(logs_of_fractions(values), errors_of_logs(values, variances), model)
        points = [model.test(100 * column, no_errors) for column in values.T]
    tests, points = ([test.per_unit(design.unit) for test in of_types] for of_types in (found.tests, points))
    result = _tidy(list(map(str, fractions)), design.contrasts, tests, points)
    result["in_reference"] = np.repeat(found.in_reference, len(design.contrasts))
    result["error_share"] = np.repeat(found.error_share, len(design.contrasts))
    _warn_of_nan(result)
    sizes = pd.Series(dtype=int) if design.groups is None else design.groups.value_counts()
    record = {
        "table": result.copy(),
        "p_value": found.p_value,
        "key": key,
        "group": group,
        "covariates": np.array(covariates, dtype=object),
        **({} if paired_by is None else {"paired_by": paired_by}),
        "donors": treatment,
        "errors": source,
        "n_samples": len(fractions),
        "groups": np.array(sizes.index, dtype=object),
        "group_sizes": sizes.to_numpy(),
        "version": __version__,
    }
    write_record(adata, key_added, record)
    return result


def _model_of(
    problems: Problems, obs: pd.DataFrame, design: Design | None, paired_by: str | None
) -> tuple[LinearModel | None, str]:
    """Return the linear model of the samples, and how donors are treated; None if there are problems."""
    if paired_by is not None and not check_complete(problems, obs, paired_by):
        return None, INDEPENDENT
    if design is None:
        return None, INDEPENDENT
    if paired_by is None:
        return LinearModel(design.matrix, design.tested, np.arange(len(obs)), has_intercepts=False), INDEPENDENT
    donors = as_labels(obs[paired_by])
    matrix, tested, has_intercepts = block_donors(problems, design, donors)
    model = LinearModel(matrix, tested, pd.factorize(donors)[0], has_intercepts)
    return model, INTERCEPTS if has_intercepts else BLOCKS


def _untestable(fractions: pd.DataFrame, design: Design | None) -> tuple[list[str], list[str]]:
    """Return the types that are 0 in all samples, and those that are below the limit in most samples of every group."""
    is_absent = (fractions == 0).all()
    groups = np.zeros(len(fractions)) if design is None or design.groups is None else np.asarray(design.groups)
    is_rare = ((fractions < LIMIT).groupby(groups).mean() > 0.5).all() & ~is_absent
    return [str(name) for name in fractions.columns[is_absent]], [str(name) for name in fractions.columns[is_rare]]


def _report_left_out(adata: AnnData, key: str, known: np.ndarray, absent: Sequence[str], rare: Sequence[str]) -> None:
    """Print or warn about samples and cell types that are left out, and samples with the fit."""
    if absent:
        print(f"compare_fractions: {len(absent)} cell types are 0 in all samples and left out: {examples(absent)}.")
    if rare:
        warn(
            f"{len(rare)} cell types are below {LIMIT:g} in most samples and left out, because their log-ratios depend on what "
            f"is added to zeros: {examples(rare)}. Merge them with similar types: tl.merge_types."
        )
    warn_of_samples(adata, key, known)


def _warn_of_nan(table: pd.DataFrame) -> None:
    """Warn about tests that could not be computed."""
    untested = table.loc[table["p_value"].isna(), "cell_type"].unique()
    if len(untested):
        warn(
            f"Expected samples (with paired_by: donors) that vary beyond the columns of obs, found that these explain "
            f"{len(untested)} cell types exactly: {examples(untested)}. Their p-values are NaN. Remove covariates, or add samples "
            "of other donors."
        )
    elif table["p_overall"].isna().any():
        warn(
            f"Expected enough samples for a joint test of {table['contrast'].nunique()} contrasts, found too few: p_overall is "
            "NaN. Merge groups, or add samples."
        )


def _tidy(
    cell_types: Sequence[str], contrasts: Sequence[str], tests: Sequence[Tests], points: Sequence[Tests]
) -> pd.DataFrame:
    """Return one row for each cell type and contrast."""
    tables = []
    for cell_type, test, change in zip(cell_types, tests, points, strict=True):
        (lower, upper), (points_lower, points_upper) = test.interval(), change.interval()
        with np.errstate(over="ignore"):
            ratios = np.exp([test.effect, lower, upper])
        columns = {
            "cell_type": cell_type,
            "contrast": contrasts,
            "effect": test.effect,
            "se": test.se,
            "df": test.df,
            "p_value": test.p_value,
            "q_value": np.nan,
            "p_overall": test.joint_p_value,
            "q_overall": np.nan,
            "ratio": ratios[0],
            "ratio_lower": ratios[1],
            "ratio_upper": ratios[2],
            "points": change.effect,
            "points_lower": points_lower,
            "points_upper": points_upper,
        }
        tables.append(pd.DataFrame(columns))
    table = pd.concat(tables, ignore_index=True)
    for kind in ("value", "overall"):
        of_contrasts = table.groupby("contrast", sort=False)[f"p_{kind}"]
        table[f"q_{kind}"] = of_contrasts.transform(lambda p_values: adjust_p_values(p_values.to_numpy()))
    return table
