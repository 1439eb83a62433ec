"""Rules of scalar arguments: numbers, text, choices, lists and mappings."""

from __future__ import annotations

import difflib
import numbers
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from scdeconv._data import keys

from .describe import describe

# numpy.random.RandomState, which scikit-learn and Leiden use, accepts no larger seed
MAX_SEED = 2**32 - 1
# formats of figures that matplotlib writes without other packages
FIGURE_ENDINGS = (".png", ".pdf", ".svg", ".eps", ".jpg", ".tif", ".webp")


@dataclass(frozen=True)
class Rule:
    """What an argument may be.

    Parameters
    ----------
    expected
        Description of the accepted values, for messages.
    accept
        Function that returns the accepted value. It raises a ``TypeError`` or ``ValueError`` with an advice as text.
    """

    expected: str
    accept: Callable[[Any], Any]

    def accepts(self, value: Any) -> bool:
        """Return whether a value is accepted."""
        try:
            self.accept(value)
        except (TypeError, ValueError):
            return False
        return True


def nearest(name: object, known: Collection[str]) -> str:
    """Return the question whether the most similar known name was meant; empty without a similar name."""
    by_lower = {item.lower(): item for item in known}
    found = difflib.get_close_matches(str(name).lower(), by_lower, 1)
    return f"Did you mean {by_lower[found[0]]!r}?" if found else ""


def wrong_type(advice: str) -> NoReturn:
    """Refuse the type of a value."""
    raise TypeError(advice)


def wrong_value(advice: str) -> NoReturn:
    """Refuse a value of the right type."""
    raise ValueError(advice)


def whole(least: int, most: int | None = None) -> Rule:
    """Refuse all but whole numbers in a range; 3.0, "3" and True are no whole numbers."""

    def accept(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            wrong_type("Pass a whole number, without quotes.")
        if not isinstance(value, numbers.Integral):
            is_whole = float(value).is_integer()
            wrong_value(f"Pass {float(value):.0f}." if is_whole else "Pass a whole number.")
        plain = int(value)
        if plain < least or (most is not None and plain > most):
            wrong_value("Pass a value in this range.")
        return plain

    return Rule(
        f"a whole number of at least {least}" if most is None else f"a whole number from {least} to {most}", accept
    )


def number(
    low: float,
    high: float = np.inf,
    *,
    with_low: bool = True,
    with_high: bool = True,
    advice: str = "Pass a value in this range.",
) -> Rule:
    """Refuse all but finite numbers in an interval; the bounds belong to it if ``with_low`` and ``with_high``."""
    lower = f"{'of at least' if with_low else 'above'} {low:g}"
    upper = "" if high == np.inf else f" and {'at most' if with_high else 'below'} {high:g}"

    def accept(value: Any) -> float:
        found = _accept_any_number(value)
        plain = found.item() if isinstance(found, np.generic) else found
        inside = (low <= plain if with_low else low < plain) and (plain <= high if with_high else plain < high)
        if not (inside and np.isfinite(plain)):
            wrong_value(advice)
        return plain

    return Rule(f"a number {lower}{upper}", accept)


def _accept_any_number(value: Any) -> Any:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        wrong_type("Pass a number, without quotes.")
    return value


def _accept_flag(value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        wrong_type("Pass True or False.")
    return bool(value)


def _accept_text(value: Any) -> str:
    if not isinstance(value, str):
        wrong_type("Pass one name as text.")
    return str(value)


def _accept_key(value: Any) -> str:
    text = _accept_text(value)
    if not text or "/" in text:
        wrong_value("h5ad files do not support such keys. Choose another key.")
    if text == keys.MEASURED:
        wrong_value("Measured fractions are read from this key and would be lost. Choose another key.")
    return text


def _accept_path(value: Any) -> Any:
    if not isinstance(value, (str, os.PathLike)):
        wrong_type("Pass the path as text or pathlib.Path.")
    if not os.fspath(value):
        wrong_value("Pass the path as text or pathlib.Path.")
    return Path(value).expanduser() if os.fspath(value).startswith("~") else value


def _accept_figure_file(value: Any) -> Any:
    path = _accept_path(value)
    if Path(path).suffix.lower() not in FIGURE_ENDINGS:
        wrong_value("Change the ending.")
    if not Path(path).parent.is_dir():
        wrong_value(f"Create the folder {os.fspath(Path(path).parent)!r} first.")
    return path


ANY_NUMBER = Rule("a number", _accept_any_number)
FLAG = Rule("True or False", _accept_flag)
TEXT = Rule("text", _accept_text)
KEY_ADDED = Rule("non-empty text without '/'", _accept_key)
PATH = Rule("a path", _accept_path)
FIGURE_FILE = Rule(f"a path that ends with one of {list(FIGURE_ENDINGS)}", _accept_figure_file)


def choice(known: Collection[Any]) -> Rule:
    """Refuse all but some values, and propose the most similar one."""

    def accept(value: Any) -> Any:
        if isinstance(value, str) and value in known:
            return str(value)
        if not isinstance(value, str):
            wrong_type("Use one of them.")
        wrong_value(nearest(value, known) or "Use one of them.")

    names = list(known)
    return Rule(f"one of {names}" if len(names) > 1 else repr(names[0]), accept)


def _accept_item(rule: Rule, item: Any, of: str = "") -> Any:
    try:
        return rule.accept(item)
    except (TypeError, ValueError) as error:
        advice = f"Each value must be {rule.expected}, found {describe(item)}{of}. {error}"
        raise type(error)(advice) from None


def listed(rule: Rule, expected: str, *, size: int | None = None, may_be_empty: bool = False) -> Rule:
    """Refuse all but lists (tuple, array, Index, set, ...) of values of a rule; text is no list."""

    def accept(value: Any) -> list[Any]:
        if isinstance(value, (str, numbers.Number)):
            wrong_type(f"Pass a list: {[value]!r}." if size is None else f"Pass {size} values.")
        if (
            isinstance(value, Mapping)
            or not isinstance(value, (Collection, np.ndarray))
            or getattr(value, "ndim", 1) != 1
        ):
            wrong_type("Pass a list.")
        if not (len(value) or may_be_empty) or (size is not None and len(value) != size):
            wrong_value(f"Pass {size} values." if size else "Pass at least one.")
        return [_accept_item(rule, item) for item in value]

    return Rule(expected, accept)


def mapped(rule: Rule, expected: str) -> Rule:
    """Refuse all but mappings and Series whose values follow a rule."""

    def accept(value: Any) -> Any:
        if not isinstance(value, (Mapping, pd.Series)):
            wrong_type("Pass a dictionary.")
        for name, item in value.items():
            _accept_item(rule, item, f" for {name!r}")
        return value

    return Rule(expected, accept)


def optional(rule: Rule) -> Rule:
    """Accept None in addition."""
    return Rule(f"{rule.expected}, or None", lambda value: None if value is None else rule.accept(value))


def _accept_bounds(value: Any) -> list[int]:
    low, high = bounds = listed(whole(1), "", size=2).accept(value)
    if low > high:
        wrong_value("Exchange the two.")
    return bounds


BOUNDS = Rule("two increasing whole numbers of at least 1", _accept_bounds)


def either(*rules: Rule) -> Rule:
    """Refuse values that no rule accepts, with the advice of the rule whose type fits, else of the last rule."""

    def accept(value: Any) -> Any:
        errors: list[TypeError | ValueError] = []
        for rule in rules:
            try:
                return rule.accept(value)
            except (TypeError, ValueError) as error:
                errors.append(error)
        raise next((error for error in errors if isinstance(error, ValueError)), errors[-1])

    return Rule(" or ".join(rule.expected for rule in rules), accept)
