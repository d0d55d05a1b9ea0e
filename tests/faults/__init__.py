"""Faults of the store, one at each call that each operation makes (F1, F2, F5, F6 of the design's list)."""
