"""The version of this code, kept in every checkpoint."""

__version__ = "0.2.0"
