"""The recording as the page shows it: waveform, speakers and words on one scale, drawn by `player.js`.

Whatever a visitor wrote travels as data: base64 of JSON in an attribute, which the script puts on the page as text.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

from diarization.talk_time import talk_times
from modeling.words_fast_diarization import Word, join_words, spoken_turns
from space.hypothesis import Hypothesis

HERE = Path(__file__).parent
PASS_ON = 'element.addEventListener("edit", (event) => trigger("submit", event.detail));'
"""For `gr.HTML(js_on_load=...)`: a change made in the player becomes the event `submit`."""


def script() -> str:
    """What the head of the page needs."""
    files = ("player.css", "player.js", "uploads.js")
    style, drawn, uploads = ((HERE / name).read_text(encoding="utf-8") for name in files)
    return f"<script>{drawn.replace('PLAYER_STYLE', json.dumps(style))}{uploads}</script>"


def player(hypothesis: Hypothesis, words: Sequence[Word] | None = None, span: tuple[float, float] | None = None) -> str:
    """HTML of the player.

    Args:
        words: with their speakers.
        span: show only so much (seconds), which is live and cannot be changed.
    """
    speakers = hypothesis.speakers
    begin, end = span or (0.0, hypothesis.seconds)
    talked = {one.speaker: one for one in talk_times(hypothesis.segments)}
    row = {name: number for number, name in enumerate(speakers)}
    data = {
        "begin": begin,
        "end": end,
        "live": span is not None,
        "peaks": base64.b64encode(hypothesis.peaks).decode(),
        "sound": hypothesis.sound and f"gradio_api/file={quote(hypothesis.sound)}",
        "undo": bool(hypothesis.earlier),
        "speakers": [{"name": name, "slot": hypothesis.slots[name], **asdict(talked[name])} for name in speakers],
        "turns": [
            [s.start, s.end, row[s.speaker], round(s.confidence, 2)] for s in hypothesis.segments if s.end > begin
        ],
        "lines": None if words is None else lines(words, row),
    }
    content = base64.b64encode(json.dumps(data, separators=(",", ":")).encode()).decode()
    return f'<diarized-recording data="{content}"></diarized-recording>'


def lines(words: Sequence[Word], row: dict[str, int]) -> list:
    """`[row of the speaker or -1, [[start, end, text], ...]]` for each turn; a text has the space that follows."""
    found = []
    for turn in spoken_turns(words):
        texts = [word.text for word in turn.words]
        spaced = [a if join_words([a, b]) == a + b else f"{a} " for a, b in pairwise(texts)] + texts[-1:]
        found.append([row.get(turn.speaker, -1), [[w.start, w.end, text] for w, text in zip(turn.words, spaced)]])
    return found
