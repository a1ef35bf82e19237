"""Scores of windows (`window_scores`) and whole recordings (`recording_scores`), each beside its floor."""
