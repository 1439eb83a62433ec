"""Joining of the inputs of :func:`scdeconv.pp.pair` in one MuData."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from scipy.optimize import nnls

from scdeconv._data import keys
from scdeconv._data.checks import (
    Problems,
    check_donors_match,
    check_expressed,
    check_hierarchy,
    check_order,
    check_shared_genes,
    examples,
    remember_values,
)
from scdeconv._data.fractions import Rest, cell_probabilities, given_fractions, has_measured
from scdeconv._data.gene_names import Genes
from scdeconv._data.genes import SPIKE_IN_PREFIX, set_spike_ins_aside
from scdeconv._data.inputs import (
    is_logged,
    is_logged_array,
    leave_out_empty_cells,
    read_table,
    set_cell_types,
    set_donors,
    take_genes,
)
from scdeconv._data.matrix import to_dense
from scdeconv._data.modalities import make_mudata
from scdeconv._data.reference import (
    count_cells,
    expect_cells,
    make_profiles,
    make_pseudobulk,
    restore_cell_sizes,
    round_counts,
    sum_cells,
)
from scdeconv._data.units import choose_unit
from scdeconv._data.warnings import warn
from scdeconv._stats.compositions import to_fractions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from mudata import MuData


def join(
    originals: Mapping[str, AnnData],
    donor_key: str = keys.DONOR,
    cell_type_key: str = keys.CELL_TYPE,
    layer: str | None = None,
    fractions_key: str = keys.MEASURED,
    duplicates: Literal["error", "sum"] = "error",
    probabilities_key: str | None = None,
    unit: Literal["counts", "tpm", "array"] | None = None,
    cell_sizes: Mapping[str, float] | None = None,
    rest: Rest = "keep",
    hierarchy: Mapping[str, Sequence[str]] | None = None,
) -> MuData:
    """Return the result of :func:`pair` without printing; ``originals`` maps its argument names to the inputs."""
    problems = Problems("The inputs cannot be paired")
    if "bulk" not in originals:
        problems.add("Expected bulk, found None. Pass bulk=, an AnnData of samples × genes.")
    if "cells" in originals and "profiles" in originals:
        problems.add("Expected either cells or profiles, found both. Pass one of the two.")
    if "pseudobulk" in originals and "profiles" not in originals:
        problems.add(
            "Expected profiles together with pseudobulk, found none. Omit pseudobulk: pair computes it from cells."
        )
    check_order(problems, originals, cell_type_key)
    problems.raise_if_any()
    if layer is not None and not any(layer in adata.layers for adata in originals.values()):
        problems.add(f"Expected layer {layer!r} in cells or bulk, found it in neither. Pass an existing layer.")
    array = unit == "array"
    tables = {
        name: read_table(problems, adata, name, layer, duplicates, array=array) for name, adata in originals.items()
    }
    # spike-in names match for any gene identifiers
    bulk_genes, *other_genes = (
        Genes(name, table.var_names[~table.var_names.str.startswith(SPIKE_IN_PREFIX)], originals[name])
        for name, table in tables.items()
    )
    check_shared_genes(problems, bulk_genes, other_genes)
    sources = set_donors(problems, tables, donor_key)
    leave_out_empty_cells(problems, tables)
    set_cell_types(problems, tables, cell_type_key)
    given = given_fractions(problems, originals["bulk"], fractions_key, tables, rest)
    probabilities = None
    if probabilities_key is not None:
        probabilities = cell_probabilities(problems, originals.get("cells"), probabilities_key, tables)
    side = "cells" if "cells" in tables else "pseudobulk"
    if side in tables and keys.DONOR in tables[side].obs:
        obs = {name: tables[name].obs for name in ("bulk", side)}
        check_donors_match(problems, obs, sources, others_known=given is not None)
    levels = {} if hierarchy is None else check_hierarchy(problems, hierarchy, _cell_types(tables, given))
    problems.raise_if_any()
    bulk_unit = choose_unit(problems, unit, tables["bulk"].X)
    sizes = {"cell_sizes": "profiles"} if "profiles" in tables else {}
    if "cells" in tables:
        sizes = {"cell_sizes": restore_cell_sizes(problems, tables["cells"], cell_sizes)}
    problems.raise_if_any()

    n_spike_ins = set_spike_ins_aside(tables)
    # cell sizes are sums over all genes, not over shared genes; signatures have them in obs["total"]
    if "cells" in tables:
        combined = keys.COMBINED in originals["cells"].uns.get(keys.UNS, {})
        logged = is_logged(originals["cells"], layer)
        tables[keys.SUMS] = sum_cells(tables["cells"], logged=logged, keep_totals=combined)
    elif "profiles" in tables and "total" not in tables["profiles"].obs:
        tables["profiles"].obs["total"] = np.asarray(tables["profiles"].X.sum(axis=1)).ravel()
    genes = tables["bulk"].var_names
    for table in tables.values():
        genes = genes[genes.isin(table.var_names)]
    tables = {name: take_genes(table, genes) for name, table in tables.items()}
    modalities = {keys.BULK: tables["bulk"]}
    if "cells" in tables:
        modalities |= {keys.CELLS: tables["cells"], keys.SUMS: tables[keys.SUMS]} | make_reference(tables[keys.SUMS])
    elif "profiles" in tables:
        obs = tables["profiles"].obs
        obs[keys.CELL_SIZE] = obs[keys.CELL_SIZE if keys.CELL_SIZE in obs else "total"].astype(float)
        tables["profiles"].obs_names = obs[keys.CELL_TYPE].to_numpy()
        modalities |= {name: tables[name] for name in (keys.PROFILES, keys.PSEUDOBULK) if name in tables}
    if keys.PROFILES in modalities:
        reference = modalities[keys.PROFILES]
        check_expressed(problems, reference.X.sum(axis=1), reference.obs[keys.CELL_TYPE], "shared genes")
        problems.raise_if_any()
    _measure(modalities, given, probabilities)

    mdata = make_mudata(modalities)
    # array intensities that were read as log2 values are exponentiated
    exponentiated = array and is_logged_array(originals["bulk"], layer)
    record: dict[str, Any] = {
        "exponentiated": exponentiated,
        "bulk_unit": bulk_unit,
        **sizes,
        "n_genes": len(genes),
        "n_spike_ins": n_spike_ins,
        **({"hierarchy": levels} if levels else {}),
        **({"never_measured": never} if (never := _never_measured(modalities)) else {}),
        **({"notes": "; ".join(problems.notes)} if problems.notes else {}),
    }
    mdata.uns[keys.UNS] = {"pair": record}
    remember_values(mdata)
    return mdata


def _cell_types(tables: Mapping[str, AnnData], given: pd.DataFrame | None) -> list[str]:
    """Return the cell types of the cells or profiles, else of the given fractions."""
    for name in ("cells", "profiles"):
        if name in tables and keys.CELL_TYPE in tables[name].obs:
            return [str(name) for name in tables[name].obs[keys.CELL_TYPE].unique()]
    return [] if given is None else [str(name) for name in given if name != keys.UNMEASURED]


def make_reference(sums: AnnData) -> dict[str, AnnData]:
    """Return profiles and pseudobulk computed from summed cells, by modality name."""
    cell_types = list(sums.obs[keys.CELL_TYPE].cat.categories)
    return {keys.PROFILES: make_profiles(sums, cell_types), keys.PSEUDOBULK: make_pseudobulk(sums)}


def _measure(
    modalities: Mapping[str, AnnData], given: pd.DataFrame | None, probabilities: pd.DataFrame | None = None
) -> None:
    """Write the measured fractions of bulk: from the donor's cells, else from ``given``, else NaN."""
    bulk = modalities[keys.BULK]
    donors = list(bulk.obs[keys.DONOR])
    if given is not None:
        measured = given.set_axis(bulk.obs_names)
    else:
        cell_types = list(modalities[keys.PROFILES].obs[keys.CELL_TYPE])
        measured = pd.DataFrame(np.nan, index=bulk.obs_names, columns=cell_types)
    if keys.CELLS in modalities:
        cell_types = list(modalities[keys.PROFILES].obs[keys.CELL_TYPE])
        counts = count_cells(modalities[keys.SUMS], donors, cell_types).set_axis(bulk.obs_names)
        total = counts.sum(axis=1)
        counted = total > 0
        expected = counts
        if probabilities is not None:
            tables = expect_cells(modalities[keys.CELLS], probabilities, donors, cell_types)
            expected, variance = (table.set_axis(bulk.obs_names) for table in tables)
            counts[:] = round_counts(expected.to_numpy())
            bulk.obsm[keys.MEASURED_VARIANCE] = variance.div((total**2).where(counted), axis=0)
        shares = expected[counted].div(total[counted], axis=0)
        measured[counted] = shares.reindex(columns=measured.columns, fill_value=0.0)
        if counted.any():
            bulk.obsm[keys.MEASURED_CELLS] = counts
    measured[_without_reads(modalities) & has_measured(measured)] = np.nan
    bulk.obsm[keys.MEASURED] = measured


def _never_measured(modalities: Mapping[str, AnnData]) -> dict[str, float]:
    """Return mean fractions, by least squares with the reference, of types that no sample with measured fractions has."""
    measured = modalities[keys.BULK].obsm[keys.MEASURED]
    rows = has_measured(measured)
    never = list(measured.columns[measured[rows].isna().all()]) if rows.any() else []
    if not never:
        return {}
    profiles = to_dense(modalities[keys.PROFILES].X).astype(float)
    bulk = to_dense(modalities[keys.BULK].X[rows]).astype(float)
    # equal influence of highly and lowly expressed genes
    scale = 1 / np.sqrt(profiles.mean(axis=0) + profiles.mean())
    fractions = to_fractions(np.stack([nnls((profiles * scale).T, sample * scale)[0] for sample in bulk]))
    means = dict(zip(modalities[keys.PROFILES].obs[keys.CELL_TYPE], fractions.mean(axis=0), strict=True))
    return {name: float(means[name]) for name in never if name in means}


def _without_reads(modalities: Mapping[str, AnnData]) -> np.ndarray:
    """Return a mask of the bulk samples that are no pairs because they or their cells have no reads in the shared genes."""
    bulk = modalities[keys.BULK]
    without = np.asarray(bulk.X.sum(axis=1)).ravel() == 0
    if without.any():
        warn(
            f"{int(without.sum())} of {bulk.n_obs} bulk samples have no reads in the shared genes and are no pairs: "
            f"{examples(bulk.obs_names[without])}."
        )
    if keys.PSEUDOBULK in modalities:
        sums = modalities[keys.PSEUDOBULK]
        donors = sums.obs[keys.DONOR][np.asarray(sums.X.sum(axis=1)).ravel() == 0]
        if len(donors):
            warn(
                f"The cells of {len(donors)} donors have no reads in the shared genes, so these donors are no pairs: "
                f"{examples(donors)}."
            )
            without = without | bulk.obs[keys.DONOR].isin(donors).to_numpy()
    return without
