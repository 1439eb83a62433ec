"""AnnData and MuData in and out; internal."""
