"""Scores of windows (`windows`) and whole recordings (`recordings`), each beside its floor."""
