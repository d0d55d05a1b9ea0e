"""Garbage: which bytes nobody names any more, and their removal. collect.py is the way in."""
