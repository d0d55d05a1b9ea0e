"""Tests of registry/, one file per module."""
