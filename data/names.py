"""What a recording is called inside RTTM and UEM files."""

import unicodedata


def recording_name(stem: str) -> str:
    """The name of a recording in RTTM, which is UTF-8 (here normalised, NFC) and whose fields end at a space."""
    text = stem.encode(errors="backslashreplace").decode()
    return "_".join(unicodedata.normalize("NFC", text).split()) or "audio"
