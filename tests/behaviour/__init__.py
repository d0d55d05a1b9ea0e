"""What the registry answers to bad input and at the edges, row by row of the design's table (the number in the id)."""
