"""Calibration of bulk by pairs: platform shifts, cell sizes, noise and compositions."""
