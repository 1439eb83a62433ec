"""Checks of the arguments of reference-based methods that need the data."""
