"""Train a method on paired data."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import numpy as np

from scdeconv import metrics
from scdeconv._data import keys
from scdeconv._data.modalities import make_mudata
from scdeconv._data.warnings import warn
from scdeconv.models import get_record, load_class
from scdeconv.pp import FEWEST_PAIRS, augment, paired_donors, select_genes, simulate, use_signature

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from scdeconv.models import DeconvolutionModel, HeldOut

# steps before training, in their order, and those of their arguments that training takes, too
PREPARATION = {
    "simulate": ("n_samples", "cells_per_sample", "sparse_share"),
    "augment": ("n_aug", "aug_ratio"),
    "select_genes": ("n_genes",),
}


def default_method(mdata: MuData) -> str:
    """Return the method that :func:`scdeconv.tl.train` takes where none is named.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`.

    Returns
    -------
    ``"simplednn"``, a network, where there are at least three paired donors, else ``"robust_nnls"``, which needs none.

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> scdeconv.tl.default_method(mdata)
    'simplednn'
    """
    return "simplednn" if len(paired_donors(mdata)) >= FEWEST_PAIRS else "robust_nnls"


def split_arguments(cls: Any, arguments: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide arguments between a model's constructor and its ``train``; refuse those that neither knows."""
    known = [
        {
            name
            for name, parameter in inspect.signature(function).parameters.items()
            if parameter.kind == parameter.KEYWORD_ONLY
        }
        for function in (cls.__init__, cls.train)
    ]
    unknown = sorted(set(arguments) - known[0] - known[1])
    if unknown:
        msg = f"Expected arguments of {cls.__name__}: {sorted(known[0] | known[1])}, found {unknown}."
        raise TypeError(msg)
    first, second = ({name: arguments[name] for name in arguments if name in names} for names in known)
    return first, second


def take_preparation(arguments: dict[str, Any]) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Divide arguments between the steps before training and the method; None leaves a step's argument as it is."""
    steps = {
        step: {name: arguments[name] for name in names if arguments.get(name) is not None}
        for step, names in PREPARATION.items()
    }
    taken = {name for names in PREPARATION.values() for name in names}
    return steps, {name: value for name, value in arguments.items() if name not in taken}


def fit_method(mdata: MuData, name: str, arguments: dict[str, Any]) -> DeconvolutionModel:
    """Train without printing, on a private copy of what would be written to."""
    record, cls = get_record(name), load_class(name)
    steps, arguments = take_preparation(arguments)
    seed = arguments.get("seed", 0)
    if not record.stochastic:
        # every method may be given a seed
        arguments.pop("seed", None)
    architecture, training = split_arguments(cls, arguments)
    needs = (architecture["train_on"],) if architecture.get("train_on") else record.needs
    n_pairs = len(paired_donors(mdata))
    if "pairs" in needs and n_pairs < record.fewest_pairs:
        msg = (
            f"Expected at least {record.fewest_pairs} paired donors for method {name!r}, found {n_pairs}. Use a method that needs no "
            "pairs, such as method='nnls'."
        )
        raise ValueError(msg)
    # registration and gene selection write to what is trained on
    written = (keys.BULK, keys.SIMULATED)
    work = make_mudata({key: adata.copy() if key in written else adata for key, adata in mdata.mod.items()})
    work.uns[keys.UNS] = dict(mdata.uns.get(keys.UNS, {}))
    done = work.uns[keys.UNS]
    if steps["simulate"] or ("simulated" in needs and keys.SIMULATED not in work.mod):
        simulate(work, **{"seed": seed, **done.get("simulate", {}), **steps["simulate"]})
    if steps["augment"]:
        augment(work, **{"seed": seed, **done.get("augment", {}), **steps["augment"]})
    if steps["select_genes"]:
        select_genes(work, **{**done.get("select_genes", {}), **steps["select_genes"]})
    if keys.SELECTED not in work[keys.BULK].var and not record.selects_genes:
        select_genes(work, record.genes_per_type * work[keys.PROFILES].n_obs)
    cls.setup_mudata(work, **{key: architecture[key] for key in ("train_on",) if key in architecture})
    model: Any = cls(work, **architecture)
    model.train(**training)
    model.bulk_unit_ = done.get("pair", {}).get("bulk_unit")
    if hasattr(model, "deregister_manager"):
        # scvi-tools remembers every registered object for good; this one is private, and cross-validation makes many
        model.deregister_manager(model.adata)
    return model


def train(
    mdata: MuData, method: str | None = None, *, signature: AnnData | None = None, **kwargs: Any
) -> DeconvolutionModel:
    """Train a method on paired data.

    Alone, ``train(mdata)`` does what is best for the data at hand: a network on the pairs where there are at least three
    paired donors, robust NNLS on the reference otherwise. Genes are selected with the defaults of
    :func:`scdeconv.pp.select_genes` unless that was done before; a method that learns from simulated bulk simulates it
    with the defaults of :func:`scdeconv.pp.simulate` unless that was done before. One line says what was done.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`. Not changed.
    method
        A name from :func:`scdeconv.tl.methods`.
    signature
        Profiles to use instead of those in ``mdata``, and of the selected genes: all genes that it shares with the
        bulk, by name. From :func:`scdeconv.pp.signature` or :func:`scdeconv.io.read_signature`, or a table cell types ×
        genes like the ``profiles`` of :func:`scdeconv.pp.pair`. The cells, and what was simulated from them, are left
        out; measured fractions are used where they are of the same cell types. To benchmark a signature, give it to
        :func:`scdeconv.pp.pair`: nothing can take out of it what it knows of donors that are held out.
    **kwargs
        Arguments of the method's class and of its ``train``, such as ``hidden``, ``max_epochs``, ``seed``. Also
        ``n_genes``, ``n_aug``, ``aug_ratio``, ``n_samples``, ``cells_per_sample`` and ``sparse_share``: with any of them
        :func:`scdeconv.pp.select_genes`, :func:`~scdeconv.pp.augment` or :func:`~scdeconv.pp.simulate` is done again,
        its other arguments as before.

    Returns
    -------
    The trained model, with ``predict``, ``save`` and ``history``.

    Raises
    ------
    ValueError
        Where the method is unknown or the data have too few pairs for it; where the signature shares no gene with the
        bulk or is no table of profiles, or the method reads cells, for which a signature is no substitute.
    TypeError
        Where the method has no argument of that name, or the signature is no AnnData.

    Warns
    -----
    UserWarning
        Where the bulk has fewer than half of the signature's genes, or fractions of other cell types; where held-out
        donors are predicted no better than by the mean composition.

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> model = scdeconv.tl.train(mdata, method="nnls")
    nnls: 7 profiles, 300 genes
    """
    data = mdata if signature is None else use_signature(mdata, signature)
    chosen = default_method(data) if method is None else method
    if signature is not None and "cells" in get_record(chosen).needs:
        msg = (
            f"Expected a method that reads profiles beside signature=, found {chosen!r}, which reads cells. Use 'nnls'."
        )
        raise ValueError(msg)
    model = fit_method(data, chosen, kwargs)
    print(f"{chosen}: {model.summary_}")
    if model.held_out_ is not None and chosen != keys.BASELINE:
        _compare_with_the_mean(model.held_out_)
    return model


def _compare_with_the_mean(held_out: HeldOut) -> None:
    """Warn where donors that were held out are not predicted better than by the mean of the others."""
    others = [held_out.measured[held_out.donors != donor].mean(axis=0) for donor in held_out.donors]
    error = metrics.rmse(held_out.measured, held_out.predicted)
    of_mean = metrics.rmse(held_out.measured, np.stack(others))
    if error >= of_mean:
        warn(
            f"Donors that were held out are predicted with an RMSE of {error:.4f}, no better than by the mean composition of "
            f"the others ({of_mean:.4f}): the estimates say little beyond it. tl.benchmark compares methods; more pairs help."
        )
