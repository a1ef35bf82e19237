"""Helpers without knowledge of speech: one-line errors, output directories, retries, Markdown tables, the version."""
