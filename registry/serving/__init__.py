"""The server: sockets, connections, and how requests and answers pass through them.

Repositories and what they are kept in are unknown here (tests/test_layering.py).
"""
