"""Keys that scdeconv reads and writes in AnnData and MuData objects."""

from __future__ import annotations

# modalities of the MuData
BULK = "bulk"
CELLS = "sc"
SUMS = "sums"
PROFILES = "profiles"
PSEUDOBULK = "pseudobulk"
SIMULATED = "simulated"

# obs columns
DONOR = "donor"
CELL_TYPE = "cell_type"
CELL_SIZE = "cell_size_umi"
RNA_PER_SPIKE_IN = "rna_per_spike_in"

# var columns of the bulk modality
SELECTED = "selected"

# obsm of bulk samples
MEASURED = "measured_fractions"
MEASURED_CELLS = "measured_cells"
MEASURED_VARIANCE = "measured_variance"
AUGMENTED = "augmented_fractions"
FRACTIONS = "fractions"

# columns of fractions that are no cell type: what was not measured, and what a method estimates beyond its reference
UNMEASURED = "Unmeasured"
UNKNOWN = "Unknown"

# tables beside an estimate, obsm[f"{key}_{result}"]
RESULTS = ("lower", "upper", "by_level", "by_level_lower", "by_level_upper", "quality")

# key of uns[UNS] with the calibration fitted to pairs
CALIBRATION = "calibration"

# keys of uns[UNS] with the comparisons of groups
COMPARED = "compare_fractions"
DIFFERENTIAL = "differential_expression"
REFERENCE_FIT = "reference_fit"

# key of uns[UNS] of bulk and cells with some of their values at pairing, to notice later changes
VALUES = "values"

# key of uns[UNS] of combined references
COMBINED = "combine_references"

# key of uns[UNS] with the names of the colours in uns["<key>_colors"]
COLORS = "colors"

# uns: uns[UNS][<step or obsm key>] is a record of plain values
UNS = "scdeconv"

# baseline method in every benchmark
BASELINE = "mean_composition"
