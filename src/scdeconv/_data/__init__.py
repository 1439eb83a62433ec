"""Internal functions that read, check and write AnnData and MuData objects."""
