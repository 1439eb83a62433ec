"""All methods by their records: those of this folder, read from their files, and those that users register."""

from __future__ import annotations

import ast
import importlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from scdeconv.io import class_of_model

from ._record import Method

if TYPE_CHECKING:
    import os

    from ._base import DeconvolutionModel

    Model = TypeVar("Model", bound=type[DeconvolutionModel])

FAMILIES = ("paired", "reference", "simulated")
_registered: dict[str, type[DeconvolutionModel]] = {}


@cache
def _files() -> dict[str, tuple[Method, str, str]]:
    """Return record, module and class of each method of this folder, by its key.

    The record is read from the source: importing a neural method takes seconds, and listing the methods must not.
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
    """Return the module of each class of this folder, by the name of the class."""
    return {class_name: module for _, module, class_name in _files().values()}


def records() -> dict[str, Method]:
    """Return the records of all methods, by key."""
    return {key: record for key, (record, *_) in _files().items()} | {
        key: cls.record for key, cls in _registered.items()
    }


def get_record(key: str) -> Method:
    """Return the record of a method; raise ``ValueError`` with the known keys for an unknown one."""
    known = records()
    if key not in known:
        msg = f"Expected a method out of {sorted(known)}, found {key!r}. See scdeconv.tl.methods()."
        raise ValueError(msg)
    return known[key]


def load_class(key: str) -> Any:
    """Return the class of a method, imported now where that was not needed before."""
    get_record(key)
    if key in _registered:
        return _registered[key]
    _, module, class_name = _files()[key]
    return getattr(importlib.import_module(module), class_name)


def register(cls: Model) -> Model:
    """Add a method of your own, to be trained and compared like those of the library.

    Parameters
    ----------
    cls
        Subclass of :class:`scdeconv.models.DeconvolutionModel` with a class attribute ``record``, a
        :class:`scdeconv.models.Method`.

    Returns
    -------
    The class, so that this works as a decorator.

    Raises
    ------
    TypeError
        Where the class has no record.
    ValueError
        Where a method of the library has the same key.

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
    record = vars(cls).get("record")
    if not isinstance(record, Method):
        msg = f"Expected a class with record = scdeconv.models.Method(...), found {cls.__name__} without. Add it."
        raise TypeError(msg)
    if record.key in _files():
        msg = (
            f"Expected a new key in {cls.__name__}.record, found {record.key!r}, a method of scdeconv. Choose another."
        )
        raise ValueError(msg)
    _registered[record.key] = cls
    return cls


def load_model(dir_path: str | os.PathLike[str]) -> DeconvolutionModel:
    """Read a trained model of whatever class, as its ``save`` wrote it. Nothing in the files is executed.

    Parameters
    ----------
    dir_path
        Folder of the model.

    Returns
    -------
    The model, ready to predict.

    Raises
    ------
    FileNotFoundError
        Where there is no model.
    ValueError
        Where it is of a class that does not estimate fractions, or of a method that is not registered.

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
    name = class_of_model(dir_path)
    keys = {class_name: key for key, (_, _, class_name) in _files().items()}
    keys |= {cls.__name__: key for key, cls in _registered.items()}
    if name not in keys:
        msg = (
            f"Expected a model that estimates fractions in {str(dir_path)!r}, found {name}. Load a clustering model with its "
            "class, and register a method of your own first: scdeconv.models.register."
        )
        raise ValueError(msg)
    return load_class(keys[name]).load(dir_path)
