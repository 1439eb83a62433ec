"""The reader of all text and Excel tables: bytes → text → fields → numbers → samples × genes."""

from __future__ import annotations

from .fields import Fields, read_fields
from .names import MISSING_MARKS, SAMPLE_ANNOTATION, SUMMARY, TRANSCRIPT, are_transcripts, plain
from .numbers import read_numbers
from .roles import TOTALS, check_dates, sort_out
from .table import Axis, Choice, Table, axis_by_corner, axis_by_names, choose_names, to_table
