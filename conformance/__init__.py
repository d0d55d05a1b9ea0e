"""The official conformance suites against Moorage, or against a peer: see README.md."""
