"""Internal numerical functions on NumPy arrays."""
