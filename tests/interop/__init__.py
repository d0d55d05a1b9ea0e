"""CNCF distribution and Moorage on one folder: `make interop`."""
