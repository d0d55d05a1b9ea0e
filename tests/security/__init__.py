"""What other registries got wrong, row by row of the design's tables S and C and section 1d (the row in each id)."""
