"""The diarization error rate of windows: a module for `evaluate.load`, and its plain functions."""

from .window_errors import count_errors, error_rates, floor

__all__ = ["count_errors", "error_rates", "floor"]
