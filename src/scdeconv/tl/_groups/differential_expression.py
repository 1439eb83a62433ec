"""Genes whose expression in a cell type differs between groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scdeconv._data import keys
from scdeconv._data.annotated import write_record
from scdeconv._data.checks import Problems, check_key_added, checked
from scdeconv._data.warnings import warn
from scdeconv._stats.type_expression.interactions import fit_interactions, samples_needed
from scdeconv._version import __version__

from .design import make_design
from .effect_tables import ERROR_RATE, summarise_types, tidy_effects
from .estimable import check_estimable, check_genes, frequent_types
from .mixtures import read_mixtures

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData


TITLE = "The expression of cell types cannot be compared"
# variance inflation above which types are reported: standard errors are 5 times those of independent fractions (set by
# hand; 3 to 20 in cohorts of 7 types with 40 to 200 samples)
MAX_INFLATION = 25.0


@checked()
def differential_expression(
    adata: AnnData,
    group: str,
    *,
    covariates: Sequence[str] = (),
    key: str = keys.FRACTIONS,
    layer: str | None = None,
    n_factors: int | None = None,
    fold_change: float = 2.0,
    key_added: str = keys.DIFFERENTIAL,
) -> pd.DataFrame:
    r"""Test which genes differ between groups in which cell type, from bulk and fractions.

    Bulk differential expression also finds genes that differ because the composition differs. Here the expression of each
    type is a parameter of a linear model of bulk, and the effect of the group on it is tested.

    Parameters
    ----------
    adata
        Bulk samples × genes with fractions: counts, TPM, or array intensities on a linear scale.
    group
        Column of ``adata.obs``. Numbers are continuous; text, categories, True and False are groups. The first category (of
        text: in alphabetical order) is the reference, to which the others are compared.
    covariates
        Further columns of ``adata.obs`` in the model, continuous or categorical, such as the batch. A covariate changes the
        expression of a gene by the same factor in all cell types.
    key
        Table of ``adata.obsm`` with the fractions, estimated or measured. RNA fractions are exact in this model; with cell
        fractions, the effects are relative to the mean RNA content of a cell. See :func:`scdeconv.tl.convert_fractions`.
    layer
        Layer to read instead of ``X``.
    n_factors
        Number of latent factors of noise that many genes share, such as RNA quality; None: estimated. They are treated as
        covariates. A programme of many genes that differs between the groups, and also within them, can be one of them. Use
        0 to include such programmes in the effects, with fewer significant genes.
    fold_change
        Fold change for which the number of samples is computed: between the groups, or, of a continuous variable, between
        one standard deviation below and above its mean.
    key_added
        Key of the results.

    Returns
    -------
    Table with one row for each cell type, contrast (such as ``"patient - control"``) and gene:

    - ``mean``: expression in the cell type if the groups do not differ, in counts per million (CPM) of its RNA;
    - ``effect``: difference of the expression in the type (CPM), or slope for one unit of a continuous variable, with its
      standard error ``se``;
    - ``log2_fold_change``: log2 ratio of the expression to that in the reference; of a continuous variable, for one unit
      around its mean. NaN if one of the two is estimated as 0 or less;
    - ``t`` and ``p_value``: moderated t-test;
    - ``q_value``: false discovery rate (Benjamini-Hochberg) over the genes of a type and contrast.

    All but ``mean`` are NaN for genes that are not tested in the type, because it does not express them in the bulk
    (one-sided p of ``mean`` above 0.05) or because its fraction is too small.

    Writes
    ------
    ``adata.uns["scdeconv"][key_added]``
        The arguments, the ``table``, the number of samples and of latent factors, the degrees of freedom ``df`` of the
        tests, and ``cell_types``: a table with, for each type and contrast, the mean fraction, the
        ``variance_inflation`` of the design (large if the fractions of other types predict its effect), the
        ``inflation`` of the standard errors, the number of genes tested (``n_tested``) and with q < 0.05
        (``n_significant``), and ``samples_needed``: the number of samples of this design with which the median gene
        of the type shows the given fold change with a power of 80 % at p < 0.001.

    Raises
    ------
    KeyError
        If ``adata.obsm[key]`` is missing.
    ValueError
        If columns of ``adata.obs`` are missing, incomplete, constant or collinear, the values are not linear expression,
        the fractions have problems, there are fewer samples than parameters, an effect cannot be told apart from those of
        other types, or ``key_added`` has another result. Nothing is written.

    Warns
    -----
    UserWarning
        If cell types are not tested because their fractions are tiny, if the fractions of types are nearly collinear, if
        samples have no fractions, or the fit of a model that was trained on them. If names of groups or genes are repeated
        or nearly the same.

    Notes
    -----
    The CPM of gene g in sample i is modelled on the linear scale, on which mixing is additive:

    .. math::

        y_{ig} = \sum_k f_{ik} (m_{kg} + e_{kg} x_i) + \mu_{ig} (c_g z_i + l_g u_i) + \varepsilon_{ig},

    with fractions f, mean m and effect e of type k, group x, covariates z, latent factors u and expected expression μ.

    *Weights.* The variance of ε has a trend :math:`a + b \mu + c \mu^2` over genes, whose inverse at the expected
    expression of the sample is its weight; see Law et al. (2014) for this idea. The variance of each gene is shrunk to the
    trend; see Smyth (2004).

    *Effects on other types.* The test of a type has a normal prior on the effects on all other types, with mean 0 and the mean
    expression as standard deviation. Otherwise large errors of the effects on rare types enter all tests. It allows for all
    possible effects, because expression is not negative: a difference of two groups is at most twice their mean.

    *Latent factors.* Loadings are principal components of the residuals of the full model. The scores of a sample are a
    robust regression of its residuals, without the effects of the group, on the loadings of all genes; see Wang et al.
    (2017). Factors above the noise level of random matrices are used.

    *Inflation.* Errors of the fractions and remaining factors let all statistics of a type vary too much. If the median
    of their absolute values is above that of a normal distribution, the standard errors are multiplied by the ratio (genomic
    control; Devlin and Roeder 1999). It is conservative if most genes of a type differ.

    References
    ----------
    Shen-Orr et al. (2010), Cell type-specific gene expression differences in complex tissues, Nat. Methods 7:287. Law et al.
    (2014), voom, Genome Biol. 15:R29. Smyth (2004), Stat. Appl. Genet. Mol. Biol. 3:3. Wang et al. (2017), Confounder
    adjustment in multiple hypothesis testing, Ann. Statist. 45:1863.

    Examples
    --------
    >>> import scdeconv
    >>> _, bulk = scdeconv.datasets.paired_cohort(n_donors=24, n_genes=300, cells_per_donor=(50, 100))
    >>> bulk.obs["state"] = ["control", "patient"] * 15
    >>> table = scdeconv.tl.differential_expression(bulk, "state", covariates=["batch"], key="true_fractions")
    ... # doctest: +ELLIPSIS
    differential_expression: 30 samples, 7 cell types, ...
    >>> table[["cell_type", "contrast", "gene"]].iloc[0].tolist()
    ['Macrophage', 'patient - control', 'GENE0001']
    """
    problems = Problems(TITLE)
    check_key_added(problems, adata, key_added, "table")
    mixtures = read_mixtures(problems, adata, key, layer)
    design = make_design(problems, adata.obs[mixtures.known], group, covariates)
    problems.raise_if_any()
    assert design is not None
    fractions = frequent_types(mixtures.fractions, design)
    tested, others = design.matrix[:, design.tested], design.matrix[:, 1 + len(design.contrasts) :]
    inflation = check_estimable(problems, fractions, design, n_factors)
    expressed = np.asarray(mixtures.expression.any(axis=0))
    check_genes(problems, mixtures.expression[:, expressed])
    problems.raise_if_any()

    # from one standard deviation below to one above the mean, or from group to group
    span = 2.0 if design.groups is None else 1.0
    found = fit_interactions(mixtures.expression[:, expressed], fractions.to_numpy(), tested / span, others, n_factors)
    needed = samples_needed(found, len(fractions), fold_change)
    found = found.per_unit(span * design.unit)
    table = tidy_effects(found, design, mixtures.fractions.columns, fractions.columns, adata.var_names, expressed)
    types = summarise_types(table, mixtures.fractions, fractions.columns, inflation, found.inflation, needed)
    _report_types(types, found.n_factors, len(fractions), fold_change)
    record = {
        "table": table.copy(),
        "cell_types": types,
        "key": key,
        "group": group,
        "covariates": np.array(covariates, dtype=object),
        "layer": "X" if layer is None else layer,
        "fold_change": fold_change,
        "n_factors": found.n_factors,
        "df": found.df,
        "n_samples": len(fractions),
        "version": __version__,
    }
    write_record(adata, key_added, record)
    return table


def _report_types(types: pd.DataFrame, n_factors: int, n_samples: int, fold_change: float) -> None:
    """Print the number of genes of each type; warn about types with nearly collinear fractions."""
    several = types["contrast"].nunique() > 1
    parts = [
        f"{row.cell_type}{f' ({row.contrast})' if several else ''} {row.n_significant} of {row.n_tested} "
        f"({row.samples_needed:.0f})"
        for row in types[types["n_tested"] > 0].itertuples()
    ]
    print(
        f"differential_expression: {n_samples} samples, {types['cell_type'].nunique()} cell types, {n_factors} latent "
        f"factors; genes with q < {ERROR_RATE:g} (samples needed for a {fold_change:g}-fold change): "
        f"{', '.join(parts) or 'none tested'}"
    )
    collinear = types[types["variance_inflation"] > MAX_INFLATION]
    if len(collinear):
        needed = [f"{row.samples_needed:.0f} for {row.cell_type}" for row in collinear.itertuples()]
        warn(
            f"Expected fractions that tell the effects on cell types apart (variance inflation of at most "
            f"{MAX_INFLATION:g}), found up to {collinear['variance_inflation'].max():.0f}. Samples needed for a "
            f"{fold_change:g}-fold change: {', '.join(dict.fromkeys(needed))}. Merge similar types (tl.merge_types), or add "
            "samples."
        )
