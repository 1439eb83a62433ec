"""Search space of :func:`scdeconv.tl.tune`: arguments of a method and of the preparation steps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import create_trial

from scdeconv._data import keys
from scdeconv._data.modalities import cell_types_of
from scdeconv.models import load_class, records, resolve
from scdeconv.tl._train import PREPARATION, keyword_arguments

if TYPE_CHECKING:
    from mudata import MuData

    from scdeconv.models import MethodLike

SearchSpace = Mapping[str, Sequence[Any] | BaseDistribution]

# range of the number of genes per cell type, for methods that use pp.select_genes; set by hand
GENES_PER_TYPE = (20, 500)


def methods_with_space() -> list[str]:
    """Return the methods with a default search space."""
    return [key for key in records() if load_class(key).tuning_space() is not None]


def default_space(
    mdata: MuData, method: MethodLike, fixed: Mapping[str, Any]
) -> dict[str, Sequence[Any] | BaseDistribution]:
    """Return the default search space of a method without the fixed arguments."""
    space = dict(resolve(method)[0].tuning_space())
    low, high = (min(number * len(cell_types_of(mdata)), mdata[keys.BULK].n_vars) for number in GENES_PER_TYPE)
    space["n_genes"] = IntDistribution(low, high, log=True)
    if keys.MEASURED_CELLS not in mdata[keys.BULK].obsm:
        space.pop("aug_ratio", None)
    return {name: values for name, values in space.items() if name not in fixed}


def known_arguments(method: MethodLike) -> dict[str, Any]:
    """Return the searchable arguments and their defaults; None keeps the recorded value of a preparation step."""
    cls, parameters = resolve(method)
    of_method = keyword_arguments(cls.__init__) | keyword_arguments(cls.train) | parameters
    steps = {name: None for names in PREPARATION.values() for name in names}
    return steps | {name: value for name, value in of_method.items() if name not in ("seed", "held_out")}


def default_arguments(mdata: MuData, method: MethodLike) -> dict[str, Any]:
    """Return the default arguments, with the default number of genes of the method on these data."""
    record, bulk = resolve(method)[0].record, mdata[keys.BULK]
    defaults = known_arguments(method)
    if not record.selects_genes and keys.SELECTED not in bulk.var:
        defaults["n_genes"] = record.n_genes(mdata)
    return defaults


def _label(choice: Any) -> Any:
    """Return a choice in a form that a study can store: tuples become text."""
    return choice if choice is None or isinstance(choice, (bool, int, float, str)) else json.dumps(choice)


class Space:
    """Distributions of the study, and conversion between stored values and arguments.

    Parameters
    ----------
    given
        Mapping from argument names to a list of choices or an Optuna distribution.
    defaults
        Defaults of these arguments (others are allowed).
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
        """Return the defaults inside the search space, as stored; other arguments are omitted in the first trial."""
        return {name: _label(value) for name, value in self.defaults.items() if self._has(name, _label(value))}

    def _has(self, name: str, value: Any) -> bool:
        try:
            create_trial(value=0.0, params={name: value}, distributions={name: self.distributions[name]})
        except (ValueError, TypeError):
            return False
        return True

    def arguments(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments from stored values; omitted arguments have their defaults."""
        chosen = {name: self.choices[name][value] if name in self.choices else value for name, value in params.items()}
        return {**self.defaults, **chosen}


def problems_of_space(given: Any, method: MethodLike, fixed: Mapping[str, Any]) -> list[str]:
    """Return the problems of a user's search space."""
    if not given:
        return [f"Expected search_space to be a mapping from arguments to values, found {given!r}."]
    found = []
    unknown = sorted(set(given) - set(known_arguments(method)))
    if unknown:
        found.append(
            f"Expected search_space with arguments of {method!r}: {sorted(known_arguments(method))}, found {unknown}."
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
                "Use for example [0.1, 0.3] or optuna.distributions.FloatDistribution(1e-5, 1e-2, log=True)."
            )
            continue
        try:
            [_label(choice) for choice in values]
        except TypeError as error:
            found.append(f"Expected choices of numbers, text, None or tuples of them for {name!r}, found {error}.")
    return found
