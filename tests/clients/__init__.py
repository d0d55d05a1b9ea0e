"""Real clients against a running registry: `make clients`. Which ones: tools.py. For operators: docs/clients.md."""
