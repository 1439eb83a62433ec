"""Registry of the methods: built-in methods, found in the source files, and methods registered by users."""

from __future__ import annotations

import ast
import importlib
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from scdeconv._data.checks import checked, nearest
from scdeconv.io import read_description

from ._base import DeconvolutionModel
from ._record import Method

if TYPE_CHECKING:
    import os

Model = TypeVar("Model", bound=type[DeconvolutionModel])
MethodLike = str | type[DeconvolutionModel] | DeconvolutionModel
"""Name of a method, its class, or an instance (only its arguments are used)."""

FAMILIES = ("paired", "reference", "simulated")
_registered: dict[str, type[DeconvolutionModel]] = {}


@cache
def _files() -> dict[str, tuple[Method, str, str]]:
    """Return record, module and class name of each built-in method, by its key.

    Records are parsed from the source files because importing torch takes seconds.
    """
    found = {}
    for family in FAMILIES:
        for path in sorted((Path(__file__).parent / family).glob("[!_]*.py")):
            classes = [
                node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)
            ]
            for node in classes:
                values = [item.value for item in node.body if isinstance(item, ast.Assign) and _is_record(item)]
                for call in values:
                    record = Method(**{word.arg: ast.literal_eval(word.value) for word in call.keywords})  # type: ignore
                    found[record.key] = record, f"{__package__}.{family}.{path.stem}", node.name
    return found


def _is_record(item: ast.Assign) -> bool:
    target = item.targets[0]
    return isinstance(target, ast.Name) and target.id == "record"


def class_modules() -> dict[str, str]:
    """Return the module of each built-in class, by class name."""
    return {class_name: module for _, module, class_name in _files().values()}


def built_in_methods() -> list[str]:
    """Return the keys of the built-in methods."""
    return list(_files())


def records() -> dict[str, Method]:
    """Return the records of all methods, by key."""
    return {key: record for key, (record, *_) in _files().items()} | {
        key: cls.record for key, cls in _registered.items()
    }


def get_record(key: str) -> Method:
    """Return the record of a method; raise ``ValueError`` if the key is unknown."""
    known = records()
    if key not in known:
        advice = nearest(key, known) or "See scdeconv.tl.methods()."
        msg = f"Expected method to be one of {sorted(known)}, found {key!r}. {advice}"
        raise ValueError(msg)
    return known[key]


def load_class(key: str) -> Any:
    """Import and return the class of a method."""
    get_record(key)
    if key in _registered:
        return _registered[key]
    _, module, class_name = _files()[key]
    return getattr(importlib.import_module(module), class_name)


def resolve(method: MethodLike) -> tuple[Any, dict[str, Any]]:
    """Return the class of a method and the constructor arguments of an instance (empty for a name or a class).

    Raises
    ------
    TypeError
        If ``method`` is not a name, class or instance, or if the class has no record.
    ValueError
        If the name is unknown.
    """
    if isinstance(method, str):
        return load_class(method), {}
    cls = method if isinstance(method, type) else type(method)
    if not issubclass(cls, DeconvolutionModel):
        msg = f"Expected method to be the name, class or instance of a method, found {method!r}. See scdeconv.tl.methods()."
        raise TypeError(msg)
    _check_record(cls, getattr(cls, "record", None))
    return cls, {} if isinstance(method, type) else dict(method.parameters_)


def _check_record(cls: type, record: object) -> None:
    if not isinstance(record, Method):
        msg = f"Expected a class attribute record of type Method, found none in {cls.__name__}. Add it to the class."
        raise TypeError(msg)


@checked()
def register(cls: Model) -> Model:
    """Register your own method, so that ``tl.train`` and ``tl.benchmark`` accept it.

    Parameters
    ----------
    cls
        Subclass of :class:`scdeconv.models.CrossFittedModel` with a class attribute ``record``, a
        :class:`scdeconv.models.Method`.

    Returns
    -------
    The class itself, so that ``register`` can be used as a decorator.

    Raises
    ------
    TypeError
        If ``cls`` is not a subclass of ``CrossFittedModel``, or has no ``record`` or ``state_type``.
    ValueError
        If a built-in method has the same key or class name.

    Examples
    --------
    >>> import scdeconv
    >>> @scdeconv.models.register
    ... class PlainNNLS(scdeconv.models.NNLS):
    ...     record = scdeconv.models.Method(
    ...         key="plain_nnls", family="reference", needs=("profiles",), summary="NNLS", reference="me"
    ...     )
    >>> "plain_nnls" in scdeconv.tl.methods().index
    True
    """
    if not (isinstance(cls, type) and issubclass(cls, DeconvolutionModel)):
        msg = (
            f"Expected cls to be a subclass of scdeconv.models.CrossFittedModel, found {cls!r}. Derive it from that "
            "class."
        )
        raise TypeError(msg)
    # an inherited record is that of another method
    _check_record(cls, vars(cls).get("record"))
    if not is_dataclass(getattr(cls, "state_type", None)):
        msg = f"Expected a dataclass {cls.__name__}.state_type, found none. Set it to the class that fit returns."
        raise TypeError(msg)
    if cls.__name__ in class_modules():
        msg = f"Expected a new class name, found {cls.__name__!r} of a built-in method. Choose another class name."
        raise ValueError(msg)
    key = cls.record.key
    if key in _files():
        msg = f"Expected a new key in {cls.__name__}.record, found {key!r} of a built-in method. Choose another key."
        raise ValueError(msg)
    _registered[key] = cls
    return cls


@checked()
def load_model(dir_path: str | os.PathLike[str]) -> DeconvolutionModel:
    """Read a trained model of any class, written by its ``save``. No code in the files is executed.

    Parameters
    ----------
    dir_path
        Directory of the model.

    Returns
    -------
    The model, ready to predict.

    Raises
    ------
    FileNotFoundError
        If the directory contains no model.
    ValueError
        If the model is not a deconvolution model, or if its method is not registered.

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> scdeconv.tl.train(mdata, "nnls").save("model", overwrite=True)
    nnls: 7 profiles, 300 genes
    >>> scdeconv.load_model("model").predict(mdata["bulk"]).shape
    (12, 7)
    """
    name = read_description(dir_path)["class"]
    keys = {class_name: key for key, (_, _, class_name) in _files().items()}
    keys |= {cls.__name__: key for key, cls in _registered.items()}
    if name not in keys:
        msg = (
            f"Expected a deconvolution model in {str(dir_path)!r}, found {name}. Load a clustering model with its "
            "class. Register your own method with scdeconv.models.register before loading."
        )
        raise ValueError(msg)
    try:
        return load_class(keys[name]).load(dir_path)
    except ValueError:
        # another process may have saved a model of another class meanwhile
        if read_description(dir_path)["class"] == name:
            raise
        return load_model(dir_path)
