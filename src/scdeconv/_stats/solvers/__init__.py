"""Numerical solvers of single methods."""
