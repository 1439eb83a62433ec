"""Training of a method on paired data."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from scdeconv._data import keys
from scdeconv._data.checks import RULES, check_keywords, check_values, checked, rules_of
from scdeconv._data.modalities import with_copies
from scdeconv._data.warnings import warn
from scdeconv.models import check_needs, load_class, records, resolve
from scdeconv.pp import FEWEST_PAIRS, augment, paired_donors, select_genes, simulate, use_signature

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from anndata import AnnData
    from mudata import MuData

    from scdeconv.models import DeconvolutionModel, HeldOut, MethodLike

# preparation steps in order, and their arguments that tl.train also accepts
PREPARATION = {
    "simulate": ("n_samples", "cells_per_sample", "sparse_share"),
    "augment": ("n_aug", "aug_ratio"),
    "select_genes": ("n_genes",),
}
PREPARED_BY: dict[str, Callable[..., None]] = {"simulate": simulate, "augment": augment, "select_genes": select_genes}
# removed arguments, with advice
FORMER_ARGUMENTS = {"start_from_solution": "no method: use method='residual_dnn' (True) or 'simplednn' (False)"}


@checked()
def default_method(mdata: MuData) -> str:
    """Return the default method of :func:`scdeconv.tl.train`.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`.

    Returns
    -------
    ``"ensemble"`` with at least four paired donors. With three, ``"calibrated_map"`` with a reference and ``"ridge"``
    without. With fewer, ``"robust_nnls"``, which needs no pairs, with a reference and ``"mean_composition"`` without.

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> scdeconv.tl.default_method(mdata)
    'ensemble'
    """
    n_pairs, with_reference = len(paired_donors(mdata)), keys.PROFILES in mdata.mod
    if n_pairs > FEWEST_PAIRS:
        return "ensemble"
    if n_pairs == FEWEST_PAIRS:
        return "calibrated_map" if with_reference else "ridge"
    return "robust_nnls" if with_reference else keys.BASELINE


def keyword_arguments(function: Any) -> dict[str, Any]:
    """Return the keyword-only arguments of a function with their defaults."""
    parameters = inspect.signature(function).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.kind == parameter.KEYWORD_ONLY}


def split_arguments(
    cls: Any, arguments: dict[str, Any], *, similar: Collection[str] = ()
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arguments of the constructor and of ``train``; refuse unknown arguments and wrong values."""
    known = [keyword_arguments(function) for function in (cls.__init__, cls.train)]
    owners = {name: _methods_with(name) for name in sorted(set(arguments) - set(known[0] | known[1]))}
    advice = [f"{name!r} is an argument of {', '.join(found)}." for name, found in owners.items() if found]
    check_keywords(cls.__name__, arguments, known[0] | known[1], similar=similar, advice=" ".join(advice))
    accepted = {**arguments, **check_values(rules_of(cls.__init__) | rules_of(cls.train), arguments)}
    first, second = ({name: accepted[name] for name in arguments if name in names} for names in known)
    return first, second


def _methods_with(argument: str) -> list[str]:
    """Return the methods with an argument of this name."""
    if argument in FORMER_ARGUMENTS:
        return [FORMER_ARGUMENTS[argument]]
    found = []
    for key in records():
        cls = load_class(key)
        if argument in keyword_arguments(cls.__init__) | keyword_arguments(cls.train):
            found.append(f"method={key!r}")
    return found


def take_preparation(arguments: dict[str, Any]) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Return the arguments of the preparation steps and of the method; None keeps the recorded value of a step."""
    steps = {
        step: {name: arguments[name] for name in names if arguments.get(name) is not None}
        for step, names in PREPARATION.items()
    }
    for step, given in steps.items():
        check_values(rules_of(PREPARED_BY[step]), given)
    taken = {name for names in PREPARATION.values() for name in names}
    return steps, {name: value for name, value in arguments.items() if name not in taken}


def check_method_arguments(method: MethodLike, arguments: dict[str, Any], caller: Callable[..., Any]) -> None:
    """Refuse arguments that neither the method nor a preparation step accepts; ``caller`` passes them on."""
    cls, _ = resolve(method)
    rest = take_preparation(arguments)[1]
    if "seed" in rest and not cls.record.stochastic:
        del rest["seed"]
    prepared = [name for names in PREPARATION.values() for name in names]
    split_arguments(cls, rest, similar=[*keyword_arguments(caller), *prepared])


def fit_method(mdata: MuData, method: MethodLike, arguments: dict[str, Any]) -> DeconvolutionModel:
    """Return the method trained without printing, on copies of the modalities that training modifies."""
    cls, parameters = resolve(method)
    record = cls.record
    steps, arguments = take_preparation(arguments)
    seed = check_values(RULES, {"seed": arguments.get("seed", 0)})["seed"]
    if not record.stochastic:
        # deterministic methods accept and ignore a seed
        arguments.pop("seed", None)
    architecture, training = split_arguments(cls, arguments)
    architecture = {**parameters, **architecture}
    needs = record.needed(architecture.get("train_on"))
    check_needs(mdata, record, architecture.get("train_on"))
    # registration and gene selection write to these modalities
    work = with_copies(mdata, (keys.BULK, keys.SIMULATED))
    done = work.uns[keys.UNS]
    if steps["simulate"] or ("simulated" in needs and keys.SIMULATED not in work.mod):
        simulate(work, **{"seed": seed, **done.get("simulate", {}), **steps["simulate"]})
    if steps["augment"]:
        augment(work, **{"seed": seed, **done.get("augment", {}), **steps["augment"]})
    if steps["select_genes"]:
        select_genes(work, **{**done.get("select_genes", {}), **steps["select_genes"]})
    if keys.SELECTED not in work[keys.BULK].var and not record.selects_genes:
        select_genes(work, record.n_genes(work))
    cls.setup_mudata(work, **{key: architecture[key] for key in ("train_on",) if key in architecture})
    model: Any = cls(work, **architecture)
    model.train(**training)
    if hasattr(model, "deregister_manager"):
        # scvi-tools keeps a reference to every registered object: release the memory
        model.deregister_manager(model.adata)
    return model


@checked()
def train(
    mdata: MuData, method: MethodLike | None = None, *, signature: AnnData | None = None, **kwargs: Any
) -> DeconvolutionModel:
    """Train a method on paired data.

    The default with at least four paired donors is ``"ensemble"``: it weighs ``"calibrated_map"`` (if there is a
    reference), ``"ridge"`` and ``"simplednn"`` by their errors on held-out donors. Without pairs it is ``"robust_nnls"``
    (:func:`default_method`). If genes were not selected before, :func:`scdeconv.pp.select_genes` is called with its
    defaults. If a method needs simulated bulk and there is none, :func:`scdeconv.pp.simulate` is called
    with its defaults. A summary is printed in one line.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`. Not changed.
    method
        Name from :func:`scdeconv.tl.methods`, or the class or an instance of a method. Of an instance, only the
        arguments are used.
    signature
        Profiles that replace those in ``mdata``. All genes shared with the bulk (matched by name) are used instead of
        the selected genes. From :func:`scdeconv.pp.signature` or :func:`scdeconv.io.read_signature`, or a table of cell
        types × genes like ``profiles`` of :func:`scdeconv.pp.pair`. Cells and simulated bulk are not used. Measured
        fractions are used if they have the same cell types. To benchmark a signature, pass it to
        :func:`scdeconv.pp.pair`. A signature derived from held-out donors leaks information.
    **kwargs
        Arguments of the method's class and of its ``train``, such as ``hidden``, ``max_epochs``, ``seed``. Also
        ``n_genes``, ``n_aug``, ``aug_ratio``, ``n_samples``, ``cells_per_sample`` and ``sparse_share``: they repeat
        :func:`scdeconv.pp.select_genes`, :func:`~scdeconv.pp.augment` or :func:`~scdeconv.pp.simulate` with these
        arguments; other arguments keep their recorded values.

    Returns
    -------
    The trained model, with ``predict``, ``save`` and ``history``.

    Raises
    ------
    ValueError
        If the method is unknown or needs more pairs, if the signature is not a table of profiles or shares too
        few genes with the bulk, or if a signature is passed to a method that needs cells.
    TypeError
        If an argument is unknown to the method, or if the signature is not an AnnData.

    Warns
    -----
    UserWarning
        If the bulk has fewer than half of the signature's genes, if the measured fractions have other cell types, or if
        the out-of-fold error is not lower than that of the mean composition.

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
    check_method_arguments(chosen, kwargs, train)
    record = resolve(chosen)[0].record
    if signature is not None and "cells" in record.needs:
        msg = (
            f"Expected a method that uses profiles with signature=, found {record.key!r}, which uses cells. Use 'nnls'."
        )
        raise ValueError(msg)
    model = fit_method(data, chosen, kwargs)
    print(f"{record.key}: {model.summary_}")
    if model.held_out_ is not None and record.key != keys.BASELINE:
        _compare_with_the_mean(model.held_out_)
    return model


def _compare_with_the_mean(held_out: HeldOut) -> None:
    """Warn if the out-of-fold error is not lower than that of the mean composition."""
    error, of_mean = held_out.errors()
    if error >= of_mean:
        warn(
            f"Expected an out-of-fold RMSE below that of the mean composition ({of_mean:.4f}), found {error:.4f}. "
            "The model is not better than the mean composition. Compare methods with tl.benchmark, or add pairs."
        )
