"""Checks of the input and of the estimate."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from scdeconv._data.checks import examples
from scdeconv._data.chunks import first_rows
from scdeconv._data.gene_names import strip_versions
from scdeconv._data.matrix import get_matrix
from scdeconv._data.training_samples import training_samples
from scdeconv._data.units import unit_of

from .estimate import FLAGS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

    from scdeconv.models import DeconvolutionModel

    from .estimate import Estimate

# difference of sums of fractions from 1 that is rounding of the written tables
SUM_TOLERANCE = 1e-3
# samples from which the unit is found
UNIT_ROWS = 100
# share of the model's genes below which their number is a problem; set by hand
MIN_GENES_FOUND = 0.9


class Check(NamedTuple):
    """Whether a check passed, and its result."""

    passed: bool
    text: str


def input_checks(adata: AnnData, estimate: Estimate, model: DeconvolutionModel | None) -> Iterator[Check]:
    """Yield the checks of the samples, of their genes and of the fractions."""
    table, missing = estimate.fractions, estimate.missing
    yield Check(not missing, f"{len(table) - len(missing)} of {len(table)} samples have an estimate{_such_as(missing)}")
    sums = table.drop(index=missing).sum(axis=1)
    if len(sums):
        other = list(sums.index[(sums - 1).abs() > SUM_TOLERANCE])
        yield Check(
            not other,
            f"Fractions of {len(other)} samples do not sum to 1{_such_as(other)}"
            if other
            else "Fractions of each sample sum to 1",
        )
    if adata.n_vars and adata.X is not None:
        yield Check(
            True,
            f"Bulk: {adata.n_vars} genes; values are {unit_of(first_rows(get_matrix(adata, None, 'adata', lazy=True))[:UNIT_ROWS])}",
        )
        if model is not None and len(model.genes_):
            genes = strip_versions(model.genes_)
            found = int(genes.isin(strip_versions(adata.var_names)).sum())
            yield Check(
                found >= MIN_GENES_FOUND * len(genes), f"{found} of {len(genes)} genes of the model are in the bulk"
            )
    if estimate.record.get("fraction_kind") == "rna":
        yield Check(False, "Fractions are shares of RNA: cell types with large cells have larger shares than of cells")
    for kind, passed, text in (
        ("out_of_fold", True, "are training samples with out-of-fold predictions"),
        ("in_sample", False, "are training samples with the fit, which is no estimate of their composition"),
    ):
        known = training_samples(adata, estimate.key, adata.obs_names, kind)  # type: ignore[arg-type]
        if known:
            yield Check(passed, f"{len(known)} samples {text}{_such_as(known)}")


def quality_checks(estimate: Estimate) -> Iterator[Check]:
    """Yield whether samples have each flag."""
    for name, flagged in estimate.flags.items():
        samples = list(flagged.index[flagged])
        short, long = FLAGS[str(name)]
        if samples:
            yield Check(False, f"{len(samples)} of {len(flagged)} samples {long}{_such_as(samples)}")
        else:
            yield Check(True, f"No sample is flagged: {short}")


def _such_as(names: list[str]) -> str:
    return f": {examples(names)}" if names else ""
