"""Platform calibration from pairs: platform shifts, cell sizes, noise and compositions."""
