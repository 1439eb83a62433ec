"""What :func:`scdeconv.tl.tune` searches: arguments of a method and of the steps before it."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import create_trial

from scdeconv._data import keys
from scdeconv.models import get_record, load_class

from ._train import PREPARATION

if TYPE_CHECKING:
    from mudata import MuData

SearchSpace = Mapping[str, Sequence[Any] | BaseDistribution]

HIDDEN = [(32,), (64,), (64, 32), (128, 64), (256, 128), (128, 64, 32), (256, 128, 64, 32)]
# genes per cell type, beside those of every method that leaves the choice of genes to pp.select_genes
GENES_PER_TYPE = (20, 500)
SPACES: dict[str, dict[str, Sequence[Any] | BaseDistribution]] = {
    "simplednn": {
        "hidden": HIDDEN,
        "dropout": FloatDistribution(0.0, 0.5),
        "learning_rate": FloatDistribution(1e-5, 1e-2, log=True),
        "weight_decay": FloatDistribution(1e-4, 1.0, log=True),
        "simulate": IntDistribution(100, 4000, log=True),
        "aug_ratio": [None, 0.95, 0.8, 0.5],
    },
    "scaden": {
        "loss": ["mse", "l1"],
        "max_steps": IntDistribution(1000, 10000, log=True),
        "n_samples": IntDistribution(500, 8000, log=True),
        "cells_per_sample": [50, 100, 500],
        "sparse_share": FloatDistribution(0.0, 1.0),
    },
    # the penalty of the ridges is chosen in closed form, by leaving donors out, whenever they are trained
    "ridge": {},
    "simulation_ridge": {"n_simulated": IntDistribution(250, 8000, log=True)},
    "nonnegative_ridge": {"penalty": FloatDistribution(1e-8, 10.0, log=True)},
}


def default_space(mdata: MuData, method: str, fixed: Mapping[str, Any]) -> dict[str, Sequence[Any] | BaseDistribution]:
    """Return the space of a method that has one, without the arguments that the user has fixed."""
    space = dict(SPACES[method])
    low, high = (min(number * mdata[keys.PROFILES].n_obs, mdata[keys.BULK].n_vars) for number in GENES_PER_TYPE)
    space["n_genes"] = IntDistribution(low, high, log=True)
    if keys.MEASURED_CELLS not in mdata[keys.BULK].obsm:
        space.pop("aug_ratio", None)
    return {name: values for name, values in space.items() if name not in fixed}


def known_arguments(method: str) -> dict[str, Any]:
    """Return the arguments that can be searched, each with its default; None leaves a step before training as it is."""
    cls = load_class(method)
    signatures = (inspect.signature(function).parameters.values() for function in (cls.__init__, cls.train))
    of_method = {
        parameter.name: parameter.default
        for parameters in signatures
        for parameter in parameters
        if parameter.kind == parameter.KEYWORD_ONLY and parameter.name not in ("seed", "held_out")
    }
    return {name: None for names in PREPARATION.values() for name in names} | of_method


def default_arguments(mdata: MuData, method: str) -> dict[str, Any]:
    """Return the defaults, with the number of genes that the method's default amounts to on these data."""
    record, bulk = get_record(method), mdata[keys.BULK]
    defaults = known_arguments(method)
    if not record.selects_genes and keys.SELECTED not in bulk.var:
        defaults["n_genes"] = min(record.genes_per_type * mdata[keys.PROFILES].n_obs, bulk.n_vars)
    return defaults


def _label(choice: Any) -> Any:
    """Return a choice as a study can store it: tuples become text."""
    return choice if choice is None or isinstance(choice, (bool, int, float, str)) else json.dumps(choice)


class Space:
    """Distributions as a study stores them, and the way between stored values and arguments.

    Parameters
    ----------
    given
        Name of each searched argument: a list of choices, or an Optuna distribution.
    defaults
        The defaults of, at least, these arguments.
    """

    def __init__(self, given: SearchSpace, defaults: Mapping[str, Any]) -> None:
        self.choices: dict[str, dict[Any, Any]] = {}
        self.distributions: dict[str, BaseDistribution] = {}
        for name, values in given.items():
            if isinstance(values, BaseDistribution):
                self.distributions[name] = values
                continue
            self.choices[name] = {_label(choice): choice for choice in values}
            self.distributions[name] = CategoricalDistribution(list(self.choices[name]))
        self.defaults = {name: defaults[name] for name in given}

    def first(self) -> dict[str, Any]:
        """Return the defaults that lie in the space, as stored; the first trial leaves the others out."""
        return {name: _label(value) for name, value in self.defaults.items() if self._has(name, _label(value))}

    def _has(self, name: str, value: Any) -> bool:
        try:
            create_trial(value=0.0, params={name: value}, distributions={name: self.distributions[name]})
        except (ValueError, TypeError):
            return False
        return True

    def arguments(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments that stored values stand for; what a trial leaves out is at its default."""
        chosen = {name: self.choices[name][value] if name in self.choices else value for name, value in params.items()}
        return {**self.defaults, **chosen}


def problems_of_space(given: Any, method: str, fixed: Mapping[str, Any]) -> list[str]:
    """Say what is wrong with a user's search space."""
    if not isinstance(given, Mapping) or not given:
        return [f"Expected search_space as a mapping from arguments to values, found {given!r}."]
    found = []
    unknown = sorted(set(given) - set(known_arguments(method)))
    if unknown:
        found.append(
            f"Expected search_space over arguments of {method!r} out of {sorted(known_arguments(method))}, found {unknown}."
        )
    if set(given) & set(fixed):
        both = sorted(set(given) & set(fixed))
        found.append(f"Expected arguments either fixed or in search_space, found both for {both}. Drop one of them.")
    for name, values in given.items():
        if isinstance(values, BaseDistribution):
            continue
        if not isinstance(values, (list, tuple)) or not values:
            found.append(
                f"Expected a list of choices or an optuna distribution for {name!r} in search_space, found {values!r}. "
                "Write for example [0.1, 0.3] or optuna.distributions.FloatDistribution(1e-5, 1e-2, log=True)."
            )
            continue
        try:
            [_label(choice) for choice in values]
        except TypeError as error:
            found.append(f"Expected choices of numbers, text, None or tuples of them for {name!r}, found {error}.")
    return found
