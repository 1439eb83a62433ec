"""Readers of bulk, cells, signatures and model files."""

from __future__ import annotations

from ._files import is_annotated, read_annotated
from ._model_files import DESCRIPTION, check_model_target, read_description
from ._read_bulk import read_bulk
from ._read_cells import missing_cells, read_cells
from ._read_sheets import read_fractions, read_sheet
from ._read_signature import make_signature, read_signature
from ._saved_model import SavedModel, TrainingRecord, curves_of, refuse_failed_parts

# other imports above are internal
__all__ = ["read_bulk", "read_cells", "read_signature"]
