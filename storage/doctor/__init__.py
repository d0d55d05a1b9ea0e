"""The doctor: finds damage in a store, and repairs what can be repaired. examine.py is the way in."""
