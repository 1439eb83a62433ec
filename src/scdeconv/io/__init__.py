"""Reading bulk, signatures and models from files."""

from __future__ import annotations

from ._files import is_annotated, read_annotated
from ._model_files import DESCRIPTION, class_of_model, curves_from_plain, curves_to_plain, read_model, write_model
from ._read_bulk import read_bulk
from ._read_signature import make_signature, read_signature

# what is imported above and not named here is for the other parts of this package
__all__ = ["read_bulk", "read_signature"]
