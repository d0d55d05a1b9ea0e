"""Benchmarks of Moorage beside its peers: `make bench`. README.md says how they measure, and what."""
