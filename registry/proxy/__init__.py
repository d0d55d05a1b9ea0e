"""Upstreams: the registries that this one fetches from, how it logs in there, and what it thinks of their answers."""
