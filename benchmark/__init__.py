"""Measurements of speed, one file each; `bench.py` runs them."""
