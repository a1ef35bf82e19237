"""Scores of windows (`window_scores`) and of recordings (`recording_scores`), beside those of a one-speaker oracle."""
