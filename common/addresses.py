"""Where this project is published: the one place to change when it is, beside the first cell of the notebook."""

REPOSITORY: str | None = None
"""Address to clone the code from, such as `https://github.com/user/fast-diarization`."""
MODEL: str | None = None
"""Hub id of the default model, fetched where neither a clone nor an installed package holds it."""
