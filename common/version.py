"""The version of this project, for its package, its models and their cards; CHANGELOG.md says what each one brought."""

__version__ = "0.2.0"
