"""Simulated paired cohort with known parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix, vstack

from scdeconv._data.annotated import make_adata
from scdeconv._data.checks import checked, whole

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_COMMON = (
    *("Macrophage", "CD4 T cell", "CD8 T cell", "Monocyte", "Dendritic cell", "Epithelial cell", "B cell"),
    *("NK cell", "Neutrophil", "Plasma cell", "Fibroblast", "Endothelial cell"),
)
_RARE = "Mast cell"


@checked(n_genes=whole(20))
def paired_cohort(
    *,
    n_donors: int = 24,
    n_bulk_only: int = 6,
    n_reference_only: int = 2,
    n_genes: int = 2000,
    cells_per_donor: tuple[int, int] = (300, 1500),
    n_cell_types: int = 7,
    seed: int = 0,
) -> tuple[AnnData, AnnData]:
    """Simulate a cohort of donors with single cells and bulk RNA-seq of the same tissue.

    Each donor has a composition (logistic-normal, with one dominant and one rare type) and donor-specific expression.
    Cells are drawn from the composition and have negative binomial counts. Bulk is the composition times the RNA per
    cell, with these effects of bulk sequencing:

    - a platform shift of each gene, larger for lowly expressed genes and partly type-specific;
    - a batch effect;
    - noise that is correlated between genes (a few factors, such as RNA quality);
    - independent noise.

    CD4 and CD8 T cells have similar profiles. The constants were chosen on human retina pairs (:func:`retina_pairs`).
    The cohort resembles them in the difference between bulk and pseudobulk and in the accuracy of a regression on the
    pairs.

    Parameters
    ----------
    n_donors
        Number of donors with cells and bulk (pairs).
    n_bulk_only
        Number of additional donors with only bulk.
    n_reference_only
        Number of additional donors with only cells.
    n_genes
        Number of genes, the same in both objects.
    cells_per_donor
        Minimum and maximum number of cells per donor. Numbers are log-uniform.
    n_cell_types
        Number of cell types, at least 4. The last type, ``"Mast cell"``, is rare (about 1 %).
    seed
        Seed of the random number generator. The same seed gives the same cohort.

    Returns
    -------
    cells
        Cells × genes, int32 counts (CSR), ``obs["donor"]`` and ``obs["cell_type"]`` (categorical). Every type has at
        least one cell.
    bulk
        Donors × genes, int32 counts, ``obs["donor"]`` and ``obs["batch"]``. The donors are in another order than in
        ``cells``. The true parameters are in ``obsm["true_fractions"]`` (cell fractions of the tissue, samples × cell
        types) and ``uns["cohort"]``: ``cell_types``; ``cell_size`` (RNA per cell, 1 for the smallest type);
        ``profiles`` (cell types × genes, rows sum to 1); and, in natural logs, ``platform_shift`` (per gene),
        ``platform_shift_of_type`` (cell types × genes, added to it), ``batch_shift`` (batches × genes),
        ``noise_loadings`` (factors × genes, per unit of a standard normal factor) and ``noise_sd`` (independent noise,
        per gene).

    Raises
    ------
    ValueError
        If a number is below its minimum, or if ``cells_per_donor`` is not increasing.

    Examples
    --------
    >>> import scdeconv
    >>> cells, bulk = scdeconv.datasets.paired_cohort(n_donors=4, n_genes=200, cells_per_donor=(20, 40))
    >>> bulk.n_obs, cells.obs["donor"].nunique()
    (10, 6)
    """
    rng = np.random.default_rng(seed)
    n_all = n_donors + n_bulk_only + n_reference_only
    names = np.array([f"D{i:03d}" for i in rng.permutation(n_all) + 1])
    has_cells = np.r_[0:n_donors, n_donors + n_bulk_only : n_all]
    has_bulk = np.arange(n_donors + n_bulk_only)

    cell_types = _cell_type_names(n_cell_types)
    genes = [f"GENE{i:0{max(4, len(str(n_genes)))}d}" for i in range(1, n_genes + 1)]
    profiles = _profiles(rng, n_cell_types, n_genes)
    cell_size = rng.permutation(np.geomspace(1, 4, n_cell_types))
    fractions = _compositions(rng, n_all, n_cell_types)
    # donors differ in gene programmes, in single genes of each type and in RNA per cell
    programmes = rng.normal(size=(n_all, 1, 4)) @ rng.normal(0, 0.5, (4, n_genes))
    effects = np.exp(0.1 * (programmes + rng.normal(size=(n_all, n_cell_types, n_genes))))
    rna = cell_size[:, None] * rng.lognormal(0, 0.13, (n_all, n_cell_types, 1)) * profiles * effects

    order = rng.permutation(has_cells)
    cells = _sample_cells(rng, rna[order], fractions[order], cells_per_donor)
    cells.obs = pd.DataFrame(
        {
            "donor": pd.Categorical(names[order][cells.obs["donor"]]),
            "cell_type": pd.Categorical(np.array(cell_types)[cells.obs["cell_type"]], categories=cell_types),
        },
        index=[f"cell{i}" for i in range(cells.n_obs)],
    )
    cells.var_names = genes

    order = rng.permutation(has_bulk)
    planted, batch, counts = _sequence_bulk(rng, fractions[order, :, None] * rna[order], profiles)
    obs = pd.DataFrame(
        {"donor": pd.Categorical(names[order]), "batch": pd.Categorical([f"batch{b + 1}" for b in batch])},
        index=[f"bulk_{name}" for name in names[order]],
    )
    bulk = make_adata(counts, obs=obs, var=pd.DataFrame(index=genes))
    bulk.obsm["true_fractions"] = pd.DataFrame(fractions[order], index=bulk.obs_names, columns=cell_types)
    bulk.uns["cohort"] = {
        "cell_types": np.array(cell_types),
        "cell_size": cell_size,
        "profiles": profiles,
        **planted,
    }
    return cells, bulk


def _cell_type_names(n_cell_types: int) -> list[str]:
    extra = [f"Type {i} cell" for i in range(len(_COMMON) + 2, n_cell_types + 1)]
    return [*_COMMON, *extra][: n_cell_types - 1] + [_RARE]


def _profiles(rng: np.random.Generator, n_cell_types: int, n_genes: int) -> Array:
    """Return profiles, cell types × genes, rows sum to 1."""
    baseline = rng.normal(0, 1.1, n_genes)
    own = rng.normal(0, 0.6, (n_cell_types, n_genes))
    own[2] = 0.9 * own[1] + np.sqrt(1 - 0.9**2) * own[2]
    marker_of = rng.integers(0, n_cell_types, n_genes)
    marker = rng.random(n_genes) < 0.15
    own[marker_of[marker], np.flatnonzero(marker)] += rng.normal(2.0, 0.5, marker.sum())
    profiles = np.exp(baseline + own)
    return profiles / profiles.sum(axis=1, keepdims=True)


def _compositions(rng: np.random.Generator, n_donors: int, n_cell_types: int) -> Array:
    middle = np.geomspace(0.2, 0.04, n_cell_types - 2)
    mean = np.r_[0.54, 0.45 * middle / middle.sum(), 0.01]
    spread = np.r_[np.full(n_cell_types - 1, 0.45), 0.7]
    logits = np.log(mean) + spread * rng.normal(size=(n_donors, n_cell_types))
    fractions = np.exp(logits)
    return fractions / fractions.sum(axis=1, keepdims=True)


def _sample_cells(rng: np.random.Generator, rna: Array, fractions: Array, cells_per_donor: tuple[int, int]) -> AnnData:
    """Return the counts of all cells; ``obs`` has the positions of donor and cell type."""
    low, high = np.log(cells_per_donor)
    n_cells = np.exp(rng.uniform(low, high, size=len(rna))).round().astype(int)
    dispersion = rng.lognormal(np.log(0.5), 0.5, rna.shape[2:])
    n_of_type = rng.multinomial(n_cells, fractions)
    # a reference needs cells of every type, but a small cohort may have no rare cell
    missed = np.flatnonzero(n_of_type.sum(axis=0) == 0)
    n_of_type[fractions.argmax(axis=0)[missed], missed] = 1
    counts, donor, cell_type = [], [], []
    for (d, k), n in np.ndenumerate(n_of_type):
        counts.append(_negative_binomial(rng, 250 * rna[d, k], rng.lognormal(0, 0.35, n), dispersion))
        donor += [d] * n
        cell_type += [k] * n
    shuffled = rng.permutation(len(donor))
    cells = make_adata(vstack(counts, format="csr")[shuffled])
    cells.obs["donor"], cells.obs["cell_type"] = np.array(donor)[shuffled], np.array(cell_type)[shuffled]
    return cells


def _negative_binomial(rng: np.random.Generator, mean: Array, depth: Array, dispersion: Array) -> csr_matrix:
    """Return counts, cells × genes, with mean ``depth * mean`` and variance ``depth * mean * (1 + dispersion * mean)``.

    A negative binomial variable is a Poisson number of bursts with logarithmic sizes. Sampling bursts is exact, and its
    cost is proportional to the number of molecules.
    """
    rate = np.log1p(dispersion * mean) / dispersion
    n_bursts = rng.poisson(depth * rate.sum())
    gene = rng.choice(len(mean), n_bursts.sum(), p=rate / rate.sum())
    size = rng.logseries((dispersion * mean / (1 + dispersion * mean))[gene])
    cell = np.repeat(np.arange(len(depth)), n_bursts)
    return csr_matrix((size.astype(np.int32), (cell, gene)), shape=(len(depth), len(mean)))


def _sequence_bulk(
    rng: np.random.Generator, rna: Array, profiles: Array
) -> tuple[dict[str, Array], NDArray[np.int64], NDArray[np.int32]]:
    """Return the true effects, sample batches and counts (samples × genes) from RNA (samples × cell types × genes)."""
    n_samples, n_cell_types, n_genes = rna.shape
    level = np.log(profiles.mean(axis=0))
    batch = rng.permutation(np.arange(n_samples) % 3 > 0).astype(np.int64)
    planted = {
        "platform_shift": rng.normal(0, 0.9, n_genes) - 0.6 * (level - level.mean()),
        "platform_shift_of_type": rng.normal(0, 0.3, (n_cell_types, n_genes)),
        "batch_shift": rng.normal(0, 0.1, (2, n_genes)),
        "noise_loadings": np.array([0.14, 0.1, 0.08, 0.06])[:, None] * rng.normal(size=(4, n_genes)),
        "noise_sd": rng.lognormal(np.log(0.08), 0.4, n_genes),
    }
    distortion = (
        planted["platform_shift"]
        + planted["batch_shift"][batch]
        + rng.normal(size=(n_samples, 4)) @ planted["noise_loadings"]
        + planted["noise_sd"] * rng.normal(size=(n_samples, n_genes))
    )
    captured = np.einsum("dkg,kg->dg", rna, np.exp(planted["platform_shift_of_type"]))
    expected = captured * np.exp(distortion)
    depth = np.where(batch == 0, rng.uniform(30e6, 40e6, n_samples), rng.uniform(3e6, 8e6, n_samples))
    counts = rng.poisson(depth[:, None] * expected / expected.sum(axis=1, keepdims=True))
    return planted, batch, counts.astype(np.int32)
