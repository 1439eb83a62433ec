"""Expression of cell types from bulk and fractions: profiles, effects of groups, and single samples."""
