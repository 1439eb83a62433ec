"""Checks of the arguments of public functions: one rule for each argument name, everywhere the same."""

from __future__ import annotations

import ast
import functools
import inspect
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin

from . import objects
from .describe import describe
from .rules import (
    ANY_NUMBER,
    BOUNDS,
    FIGURE_FILE,
    FLAG,
    KEY_ADDED,
    MAX_SEED,
    PATH,
    TEXT,
    Rule,
    choice,
    either,
    listed,
    mapped,
    nearest,
    number,
    optional,
    whole,
)

Function = TypeVar("Function", bound=Callable[..., Any])

COUNT, COUNT_OR_ZERO, TWO_OR_MORE, SEED = whole(1), whole(0), whole(2), whole(0, MAX_SEED)
POSITIVE, NOT_NEGATIVE = number(0, with_low=False), number(0)
SHARE, BELOW_ONE = number(0, 1), number(0, 1, with_high=False)
ABOVE_ZERO, BETWEEN = number(0, 1, with_low=False), number(0, 1, with_low=False, with_high=False)
COVERAGE = number(0, 1, with_low=False, with_high=False, advice="Pass 0.9 for 90 %.")
NAMES = listed(TEXT, "a list of names")
NAMES_BY_NAME = mapped(listed(TEXT, "a list of names", may_be_empty=True), "a dictionary of lists of names")
SIZES = mapped(ANY_NUMBER, "a dictionary of numbers by cell type")
FOLDS = either(choice(("leave-one-donor-out", "rows")), TWO_OR_MORE)
PATHS = either(listed(PATH, "a list of paths"), PATH)
WIDTHS = listed(COUNT, "a list of layer widths")
FIGURE_SIZE = listed(POSITIVE, "two numbers above 0: width and height in inches", size=2)
COLOR = either(TEXT, listed(ANY_NUMBER, "numbers"))
PALETTE = either(mapped(COLOR, "a dictionary of colours by name"), listed(COLOR, "a list of colours"), TEXT)
RESOLUTIONS = either(listed(POSITIVE, "a list of numbers"), POSITIVE)
N_JOBS = Rule("a whole number other than 0", either(whole(-(2**31), -1), COUNT).accept)
# allowed values are read from the annotation
CHOICE = Rule("one of the values of the annotation", lambda value: value)

RULES: dict[str, Rule] = {
    # objects
    "adata": objects.SAMPLES,
    "mdata": objects.PAIRED,
    **dict.fromkeys(("data", "other_bulk", "test"), objects.ROWS),
    "model_or_mdata": either(objects.MODEL, objects.PAIRED),
    "cells": objects.CELLS,
    "bulk": objects.SAMPLES_ONLY,
    **dict.fromkeys(("profiles", "signature"), objects.PROFILES),
    "pseudobulk": objects.PSEUDOBULK,
    "reference": objects.REFERENCE,
    "references": either(
        mapped(objects.REFERENCE, "a dictionary of AnnData"), listed(objects.REFERENCE, "a list of AnnData")
    ),
    "model": objects.MODEL,
    "method": objects.METHOD,
    "methods": either(mapped(objects.MAPPING, "a dictionary"), listed(objects.METHOD, "a list of methods")),
    "calibration": either(FLAG, objects.CALIBRATION),
    "constraints": objects.CONSTRAINTS,
    "tuning": objects.TUNING,
    "history": objects.HISTORY,
    **dict.fromkeys(("benchmark", "table"), objects.FRAME),
    **dict.fromkeys(("known", "known_se"), objects.KNOWN),
    **dict.fromkeys(("measured", "predicted", "distance", "fractions", "real", "simulated"), objects.NUMBERS),
    "labels": objects.LABELS,
    "rng": objects.GENERATOR,
    "pairs": objects.PAIRS,
    **dict.fromkeys(("search_space", "tune", "types"), objects.MAPPING),
    "ax": objects.AXES,
    "axes": objects.MANY_AXES,
    "figsize": FIGURE_SIZE,
    "palette": PALETTE,
    # files
    "save": FIGURE_FILE,
    **dict.fromkeys(("path", "cell_annotation", "dir_path", "study"), PATH),
    **dict.fromkeys(("tx2gene", "gene_names"), objects.NAMES),
    # names
    **dict.fromkeys(
        ("batch_key", "cell_state_key", "cell_type_key", "donor_key", "fractions_key", "key", "labels_key"), TEXT
    ),
    **dict.fromkeys(("measured_key", "probabilities_key", "reference_key", "groupby", "layer", "protein", "rna"), TEXT),
    **dict.fromkeys(("cell_type", "control", "group", "paired_by", "perturbed"), TEXT),
    **dict.fromkeys(("census_version", "disease", "malignant", "sort_by", "tissue", "title", "uri", "variable"), TEXT),
    "key_added": KEY_ADDED,
    **dict.fromkeys(("assays", "cell_types"), NAMES),
    "covariates": listed(TEXT, "a list of names", may_be_empty=True),
    # donors are often numbers
    "donors": listed(either(TEXT, ANY_NUMBER), "a list of names"),
    **dict.fromkeys(("annotation", "drop", "tracks"), either(listed(TEXT, "a list of names", may_be_empty=True), TEXT)),
    **dict.fromkeys(("markers", "groups", "group_markers", "hierarchy"), NAMES_BY_NAME),
    **dict.fromkeys(("cell_size", "cell_sizes", "weights"), SIZES),
    # choices
    **dict.fromkeys(
        ("absolute", "base", "batch_correction", "criterion", "duplicates", "executor", "genes_in", "platform_prior"),
        CHOICE,
    ),
    **dict.fromkeys(
        ("kind", "likelihood", "loss", "organism", "rest", "scale", "suspension_type", "to", "unit"), CHOICE
    ),
    "train_on": choice(("pairs", "simulated")),
    "accelerator": choice(("auto", "cpu", "cuda", "gpu", "mps", "tpu")),
    "cv": FOLDS,
    # whole numbers
    "seed": SEED,
    "seeds": listed(SEED, "a list of seeds"),
    "n_jobs": N_JOBS,
    **dict.fromkeys(
        ("batch_size", "cells_per_sample", "max_cells_per_type", "max_epochs", "max_iterations", "max_steps"), COUNT
    ),
    **dict.fromkeys(
        ("min_cells", "n_aug", "n_components", "n_genes", "n_hidden", "n_iterations", "n_latent", "n_layers"), COUNT
    ),
    **dict.fromkeys(
        ("n_members", "n_mixtures", "n_pairs", "n_samples", "n_simulated", "n_top_genes", "n_trials", "n_types"), COUNT
    ),
    **dict.fromkeys(("n_donors", "patience", "pretrain_epochs", "simulate"), COUNT),
    **dict.fromkeys(("n_bulk_only", "n_factors", "n_reference_only", "permutations"), COUNT_OR_ZERO),
    **dict.fromkeys(("n_clusters", "replicates"), TWO_OR_MORE),
    "n_pcs": whole(2, 100),
    "n_cell_types": whole(4),
    "hidden": listed(COUNT, "a list of layer widths", may_be_empty=True),
    **dict.fromkeys(("cells_per_donor", "genes_per_type"), BOUNDS),
    # numbers
    "coverage": COVERAGE,
    "dropout": either(listed(BELOW_ONE, "a list of rates"), BELOW_ONE),
    "dropout_rate": BELOW_ONE,
    "aug_ratio": ABOVE_ZERO,
    **dict.fromkeys(("broad", "fraction", "outlier_samples", "outlier_share", "sparse_share"), SHARE),
    **dict.fromkeys(("sampling", "share"), BETWEEN),
    **dict.fromkeys(("epsilon", "learning_rate", "resolution"), POSITIVE),
    **dict.fromkeys(("cannot_link_weight", "floor", "gamma", "must_link_weight", "noise", "penalty"), NOT_NEGATIVE),
    **dict.fromkeys(("mix", "spread", "tolerance", "var_cutoff", "weight_decay"), NOT_NEGATIVE),
    **dict.fromkeys(("fold_change", "perplexity"), number(1, with_low=False)),
    # flags
    **dict.fromkeys(
        ("across_donors", "allow_leakage", "by_gene", "consistent_units", "covariance", "drop_ribosomal"), FLAG
    ),
    **dict.fromkeys(
        ("exact_labels", "held_out", "hierarchical", "in_sample", "overwrite", "per_type", "quantile_normalise"), FLAG
    ),
    "header": FLAG,
    **dict.fromkeys(("refit", "scale_by_batch", "unknown", "update_reference", "weighted_residuals"), FLAG),
}


def checked(*, further: Callable[[], Collection[str]] | None = None, **special: Rule) -> Callable[[Function], Function]:
    """Refuse arguments of the wrong type, values out of range, and unknown or misspelt keywords.

    All wrong arguments of a call are reported in one error, before the function starts.

    Parameters
    ----------
    further
        Function that returns the names that ``**kwargs`` accepts. None: the function checks ``**kwargs`` itself.
    **special
        Rules of this function that differ from :data:`RULES`.
    """

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)
        parameters = {name: item for name, item in signature.parameters.items() if name not in ("self", "cls")}
        by_name = [name for name, item in parameters.items() if item.kind != item.VAR_KEYWORD]
        rules = {
            name: _rule_of(item, special.get(name) or RULES[name], function)
            for name, item in parameters.items()
            if name in special or name in RULES
        }

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            owner = _name_of(function, args)
            unknown = set(kwargs) - set(by_name)
            if unknown and (further is not None or len(by_name) == len(parameters)):
                passed_on = further() if further is not None else ()
                check_keywords(owner, unknown - set(passed_on), by_name, similar=passed_on)
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError as error:
                msg = f"Expected {owner}({_outline(parameters)}), found {error}. Change the call."
                raise TypeError(msg) from None
            bound.arguments.update(check_values(rules, bound.arguments))
            return function(*bound.args, **bound.kwargs)

        wrapper.argument_rules = rules  # type: ignore[attr-defined]
        return wrapper  # type: ignore[return-value]

    return decorate


def rules_of(function: Callable[..., Any]) -> dict[str, Rule]:
    """Return the rules of a checked function by argument name; none for the functions of others."""
    rules: dict[str, Rule] = getattr(function, "argument_rules", {})
    return rules


def check_values(rules: Mapping[str, Rule], values: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse values that break their rules, all in one error, and return the accepted values."""
    accepted: dict[str, Any] = {}
    errors: list[TypeError | ValueError] = []
    messages = []
    for name, value in values.items():
        if name in rules:
            try:
                accepted[name] = rules[name].accept(value)
            except (TypeError, ValueError) as error:
                advice = _find_exchanged(rules, values, name) or error
                messages.append(f"Expected {name} to be {rules[name].expected}, found {describe(value)}. {advice}")
                errors.append(error)
    if errors:
        raise type(errors[0])("\n".join(messages)) from None
    return accepted


def check_keywords(
    owner: str, given: Collection[str], known: Collection[str], *, similar: Collection[str] = (), advice: str = ""
) -> None:
    """Refuse unknown keyword arguments, and propose the most similar name.

    Parameters
    ----------
    owner
        What the arguments belong to, for the message.
    given
        Names of the given arguments.
    known
        Names of the accepted arguments.
    similar
        Further names to propose, such as those of functions that pass arguments on.
    advice
        What to do instead of the proposal.
    """
    unknown = sorted(set(given) - set(known))
    if unknown:
        meant = filter(None, (nearest(name, [*known, *similar]) for name in unknown))
        msg = f"Expected arguments of {owner}: {sorted(known)}, found {unknown}. {advice or ' '.join(meant) or 'Omit them.'}"
        raise TypeError(msg)


def _find_exchanged(rules: Mapping[str, Rule], values: Mapping[str, Any], name: str) -> str:
    """Return the advice to exchange two arguments, if each breaks its own rule and follows that of the other."""
    for other in values:
        if other in rules and rules[name].accepts(values[other]) and rules[other].accepts(values[name]):
            return f"Exchange {name} and {other}."
    return ""


def _rule_of(parameter: inspect.Parameter, rule: Rule, function: Callable[..., Any]) -> Rule:
    """Return the rule with the choices of the annotation, and with None where annotation or default allow it."""
    if rule is CHOICE:
        rule = choice(_literals(parameter.annotation, function.__globals__))
    return optional(rule) if parameter.default is None or re.search(r"\bNone\b", str(parameter.annotation)) else rule


def _literals(annotation: str, known: Mapping[str, Any]) -> list[str]:
    """Return the values of all ``Literal`` in the text of an annotation; ``known`` are the names in its module."""
    values = []
    for node in ast.walk(ast.parse(annotation, mode="eval")):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            values.append(node.value)
        elif isinstance(node, ast.Name) and get_origin(known.get(node.id)) is Literal:
            values.extend(get_args(known[node.id]))
    return values


def _name_of(function: Callable[..., Any], args: tuple[Any, ...]) -> str:
    """Return the name that a user calls: ``tl.predict``, ``NNLS.train``, ``NNLS``."""
    *owners, name = function.__qualname__.split(".")
    if owners and args:
        cls = args[0] if isinstance(args[0], type) else type(args[0])
        return cls.__name__ if name == "__init__" else f"{cls.__name__}.{name}"
    part = re.fullmatch(r"scdeconv\.([a-z]+)\b.*", function.__module__)
    return f"{part[1]}.{name}" if part else name


def _outline(parameters: Mapping[str, inspect.Parameter]) -> str:
    """Return the argument names of a signature, with the mark of keyword-only arguments."""
    names: list[str] = []
    marked = False
    for name, item in parameters.items():
        if item.kind == item.KEYWORD_ONLY and not marked:
            names, marked = [*names, "*"], True
        names.append(f"**{name}" if item.kind == item.VAR_KEYWORD else name)
    return ", ".join(names)
