"""Numerics on NumPy arrays; internal."""
