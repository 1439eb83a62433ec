"""Samples of an estimate that the model was trained on, in the record of ``tl.predict``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from scdeconv._data import keys

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


def training_samples(
    adata: AnnData, key: str, samples: pd.Index, kind: Literal["in_sample", "out_of_fold"]
) -> list[str]:
    """Return which of the samples were training samples of the estimate ``adata.obsm[key]``.

    Parameters
    ----------
    adata
        Bulk samples with estimates.
    key
        Key of the estimate.
    samples
        Names of samples.
    kind
        ``"in_sample"``: those with the fit, which is no estimate; ``"out_of_fold"``: those with predictions of models
        trained without their donor.
    """
    recorded = adata.uns.get(keys.UNS, {}).get(key, {}).get(kind, ())
    return list(samples[samples.isin(list(recorded))])
