"""Where this project is published: the one place to change when it is, beside the first cell of the notebook.

Then `python -m publishing.card pretrained/*` writes the cards with these addresses, and a test names every page of the
repository that gives another one.
"""

REPOSITORY: str | None = None
"""Address to clone the code from, such as `https://github.com/user/fast-diarization`."""
MODELS: dict[str, str] = {}
"""Hub ids of the directories of `pretrained/` by their names, such as `user/lightweight-cnn`."""
MODEL: str | None = MODELS.get("lightweight-cnn")
"""Hub id of the default model, fetched where neither a clone nor an installed package holds it."""
SPACE: str | None = None
"""Hub id of the Space with the page."""
