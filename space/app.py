"""A page that shows who speaks when: in an uploaded or recorded file, or live from the microphone.

    python -m space.app                                                  # from the repository's root
    FAST_DIARIZATION_MODEL=runs/demo/model python -m space.app           # with another model

Runs on a CPU with the ONNX model; neither torch nor transformers is needed. `space/README.md` tells how it becomes a
Space on the Hub.
"""

import os
import time
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import replace
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory

from common.flags import FlagParser
from common.program import OF_PAGE, end_quietly

if __name__ == "__main__":
    end_quietly(OF_PAGE)
    FlagParser(description=__doc__).parse_args()  # --help, before imports that take seconds

import gradio as gr
import numpy as np

from data.names import recording_name
from diarization.backends import ONNX_FILE, ModelError, open_network
from diarization.counts import count_facts, other_counts
from diarization.formats import FORMATS, WITH_WORDS
from diarization.names import listed, recording_stem
from diarization.timeline import clock
from modeling.counting_fast_diarization import CountEstimate
from modeling.enrolment_fast_diarization import KnownVoices, VoicesError
from modeling.segments_fast_diarization import Segment
from modeling.transcripts_fast_diarization import Passage, WordsError, read_transcript
from space import jobs
from space.hypothesis import EditError, Hypothesis
from space.live import Live
from space.player import PASS_ON, player, script

MODEL = Path(os.environ.get("FAST_DIARIZATION_MODEL", "pretrained/lightweight-cnn")).resolve()
EXAMPLE = jobs.ROOT / "data" / "sample" / "call.ogg"
try:
    NETWORK, SETTINGS = open_network(str(MODEL / ONNX_FILE))
except ModelError as error:
    raise SystemExit(f"error: {error}") from None
AUTOMATIC = "automatic"
DOWNLOADS = ("txt", "srt", "vtt", "rttm", "csv", "json")
NO_FILES = (None,) * len(DOWNLOADS)
"""Instead of the downloads; not `gr.skip()`, after which Gradio forgets to delete the files that come next."""
EDIT = ("do", "speaker", "to", "start", "end")
LIVE_SECONDS, NOW_SECONDS, LATE_SECONDS = 40.0, 1.5, 1.0
"""What is shown while the microphone is on; how lately somebody was active who speaks now, for turns come a second
late; and the time in which the last pieces of sound come after the microphone is off."""
PRIVATE = {"concurrency_limit": jobs.PLACES, "show_progress": "hidden", "api_visibility": "private"}
"""Of events that only make sense on the page, and that nobody waits for."""
AT_ONCE = {"queue": False, **PRIVATE}


def speakers_of_file(recording: str | None, speakers: str, voices: str | None = None) -> Iterator[tuple]:
    """How far a recording is, then who speaks when in it: summary, bar, hypothesis, sound, and the downloads."""
    if recording is None:
        yield nothing("**error:** upload or record something first")
        return
    file, message = Path(recording), {}
    with TemporaryDirectory(prefix="fast-diarization-") as directory:  # the page has a copy before it is deleted
        sound = Path(directory, "sound.wav")
        asked = None if speakers == AUTOMATIC else int(speakers)
        try:
            for message in jobs.diarize_apart(MODEL / ONNX_FILE, file, asked, sound, voices):
                if "warning" in message:
                    gr.Warning(escape(message["warning"]))
                elif "segments" not in message:
                    yield *listening(message["heard"], message.get("total")), None, None, *NO_FILES
        except jobs.JobError as error:
            yield nothing(f"**error:** {plain(str(error))}")
            return
        segments = [Segment(*values) for values in message["segments"]]
        if not segments:
            yield nothing(f"**error:** {plain(file.name)}: no speech found")
            return
        count = CountEstimate(*message["count"])
        about = ({"num_speakers_requested": asked} if asked else {}) | count_facts(count)
        kept = {"about": about, "count": count, "peaks": b64decode(message["peaks"])}
        hypothesis = Hypothesis.of(recording_stem(file), message["heard"], segments, **kept)
        yield summary(hypothesis), "", hypothesis, str(sound), *downloads(hypothesis, Path(directory))


def listening(heard: float, total: float | None) -> tuple[str, str]:
    """How far it is in words and as a bar."""
    if not total:
        return f"Listening: {clock(heard)} ...", ""
    percent = min(round(100 * heard / total), 100)
    bar = f'<div class="bar"><i style="width:{percent}%"></i></div>'
    return f"Listening: {percent} % of {clock(total)} ..." if percent < 100 else "Telling the speakers apart ...", bar


def nothing(reason: str) -> tuple:
    """The outputs of `speakers_of_file` where there is no hypothesis."""
    return reason, "", None, None, *NO_FILES


def summary(hypothesis: Hypothesis) -> str:
    found, turns = len(hypothesis.speakers), len(hypothesis.segments)
    segments = f"{turns} segment{'s' * (turns != 1)}"
    text = f"**{found} speaker{'s' * (found != 1)}** in {segments} of {clock(hypothesis.seconds)}"
    if hypothesis.count is None or hypothesis.count.sure or hypothesis.earlier:
        return text
    return f"{text}. Unsure, {other_counts(hypothesis.count)}: if you know the number, choose it above."


def plain(text: str) -> str:
    """Markdown that shows the text as it is."""
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>!#|~&$" else letter for letter in text)


def downloads(hypothesis: Hypothesis, directory: Path) -> list[str]:
    """A file of each of `DOWNLOADS`, written to `directory`."""
    words, files = hypothesis.words(), []
    for name in DOWNLOADS:
        suffix, to_text = FORMATS[name]
        given = {"words": words} if words is not None and name in WITH_WORDS else {}
        if name == "json":
            given["about"] = hypothesis.about
        target = directory / f"{hypothesis.name}{suffix}"
        target.write_text(to_text(recording_name(hypothesis.name), hypothesis.segments, **given), encoding="utf-8")
        files.append(str(target))
    return files


def present(hypothesis: Hypothesis | None) -> Iterator[tuple]:
    """The hypothesis, its player and summary, and the downloads."""
    with TemporaryDirectory(prefix="fast-diarization-") as directory:
        files = downloads(hypothesis, Path(directory))
        yield hypothesis, player(hypothesis, hypothesis.words()), summary(hypothesis), *files


def finished(hypothesis: Hypothesis | None, sound: str | None, words: str | None) -> Iterator[tuple]:
    """What follows `speakers_of_file`: words, if given, and whether there is something to show; then as `present`."""
    transcript, message = read_words(words)
    shown = hypothesis is not None
    visible = gr.update(visible=shown), gr.update(visible=True), gr.update(visible=False), message
    if not shown:
        yield *visible, None, "", gr.skip(), *NO_FILES
        return
    for outputs in present(replace(hypothesis, sound=sound, transcript=transcript)):
        yield *visible, *outputs


def read_words(file: str | None) -> tuple[tuple[Passage, ...] | None, str]:
    """The words of a file, and what there is to say about it."""
    if file is None:
        return None, ""
    path = Path(file)
    if path.stat().st_size > jobs.MOST_WORDS_BYTES:
        return None, f"**error:** {plain(path.name)} is larger than {jobs.MOST_WORDS_BYTES // 2**20} MB"
    try:
        passages = tuple(read_transcript(file))
    except (WordsError, OSError) as error:
        return None, f"**error:** {plain(str(error).replace(file, path.name))}"
    count = sum(len(passage.words) for passage in passages)
    if count > jobs.MOST_WORDS:
        return None, f"**error:** {plain(path.name)} has more than {jobs.MOST_WORDS} words; cut it into parts"
    return passages, f"{count} word{'s' * (count != 1)} in {plain(path.name)}"


def with_words(hypothesis: Hypothesis | None, words: str | None) -> Iterator[tuple]:
    """Other words for a recording that is diarized already, if one is."""
    transcript, message = read_words(words)
    if hypothesis is None:
        yield message, None, gr.skip(), gr.skip(), *NO_FILES
        return
    for outputs in present(replace(hypothesis, transcript=transcript)):
        yield message, *outputs


def edited(hypothesis: Hypothesis | None, event: gr.EventData) -> Iterator[tuple]:
    """A change made in the player, carried into the downloads."""
    try:
        if hypothesis is None:
            raise EditError("this page was open too long; find the speakers again")
        hypothesis = hypothesis.edited({key: getattr(event, key, None) for key in EDIT})
    except EditError as error:
        gr.Warning(escape(str(error)))
    if hypothesis is None:
        yield None, gr.skip(), gr.skip(), *NO_FILES
    else:
        yield from present(hypothesis)


def read_voices(file: str | None) -> tuple[KnownVoices | None, str]:
    """The people of a file, and what there is to say about it."""
    if file is None:
        return None, ""
    path = Path(file)
    if path.stat().st_size > jobs.MOST_VOICES_BYTES:
        return None, f"**error:** {plain(path.name)} is larger than {jobs.MOST_VOICES_BYTES // 2**20} MB"
    try:
        known = KnownVoices.load(file, NETWORK)
    except VoicesError as error:
        return None, f"**error:** {plain(str(error).replace(file, path.name))}"
    return known, f"Known: {plain(listed(sorted(known.people)))}"


def speakers_live(sound: tuple[int, np.ndarray] | None, live: Live | None, voices: str | None = None):
    """What the microphone has heard lately, and the state for the next piece of sound."""
    live = live or Live(NETWORK, SETTINGS, read_voices(voices)[0])
    if sound is not None and len(sound[1]):
        try:
            live.hear(*sound)
        except ValueError as error:
            return gr.skip(), f"**error:** {error}", live
    if live.ended:
        return gr.skip(), gr.skip(), live
    end = max(live.seconds, LIVE_SECONDS)
    hypothesis = live.hypothesis()
    speaking = sorted({s.speaker for s in hypothesis.segments if s.end > live.seconds - NOW_SECONDS})
    now = f"**Speaking now:** {plain(', '.join(speaking) or 'nobody')}"
    return player(hypothesis, span=(end - LIVE_SECONDS, end)), now, live


def live_ended(live: Live | None) -> Iterator[tuple]:
    """The whole history once the microphone stops: whether there is any, then as `present`."""
    if live is None:
        yield gr.skip(), gr.skip(), None, "", "", *NO_FILES
        return
    time.sleep(LATE_SECONDS)
    live.end()
    hypothesis = live.hypothesis()
    spoken = bool(hypothesis.segments)
    visible = gr.update(visible=spoken), gr.update(visible=spoken)
    if not spoken:
        yield *visible, None, "", f"Nobody spoke in {clock(live.seconds)}.", *NO_FILES
        return
    for outputs in present(hypothesis):
        yield *visible, *outputs


class Results:
    """The player and the downloads below it, hidden as long as there is no hypothesis."""

    def __init__(self, message: gr.Markdown, prefix: str = ""):
        self.hypothesis = gr.State(time_to_live=jobs.KEPT_SECONDS)
        with gr.Column(visible=False, elem_id=f"{prefix}results") as self.column:
            self.player = gr.HTML(elem_id=f"{prefix}timeline", js_on_load=PASS_ON, apply_default_css=False)
            with gr.Row(elem_classes="downloads") as self.row:
                self.downloads = [
                    gr.DownloadButton(name.upper(), size="sm", elem_id=f"{prefix}{name}") for name in DOWNLOADS
                ]
        self.outputs = [self.hypothesis, self.player, message, *self.downloads]
        self.player.submit(edited, self.hypothesis, self.outputs, **PRIVATE)


def build_voices(elem_id: str) -> gr.File:
    with gr.Column():
        label = "Known voices, of --enroll"
        voices = gr.File(label=label, file_types=[".safetensors"], elem_id=elem_id, height=120)
        about = gr.Markdown(elem_id=f"about-{elem_id}")
    voices.change(lambda file: read_voices(file)[1], voices, about, **AT_ONCE)
    return voices


def build_recording() -> None:
    recording = gr.Audio(
        sources=["upload", "microphone"],
        type="filepath",
        label="Recording",
        buttons=[],
        elem_id="recording",
        waveform_options=gr.WaveformOptions(show_recording_waveform=False),
    )
    example = gr.Button("Try an example", size="sm", elem_id="example", visible=EXAMPLE.is_file())
    with gr.Row(elem_classes="choices"):
        choices = [AUTOMATIC, *map(str, range(1, 11))]
        speakers = gr.Dropdown(choices, value=AUTOMATIC, label="Number of speakers", elem_id="speakers")
        start = gr.Button("Find the speakers", variant="primary", elem_id="start")
        stop = gr.Button("Stop", elem_id="stop", visible=False)
    with gr.Accordion("Words and known voices (optional)", open=False, elem_id="optional"), gr.Row():
        words, about_words = build_words()
        voices = build_voices("voices")
    message = gr.Markdown(elem_id="summary")
    progress = gr.HTML(elem_id="progress", apply_default_css=False)
    sound = gr.File(visible=False)
    results = Results(message)
    switched = [results.column, start, stop]
    found = [message, progress, results.hypothesis, sound]

    def reset(text: str, running: bool):
        visible = gr.update(visible=False), gr.update(visible=not running), gr.update(visible=running)
        return lambda: (*visible, text, "", None, None)

    begun = start.click(reset("Waiting for a place ...", True), None, [*switched, *found], **AT_ONCE)
    job = begun.then(
        speakers_of_file,
        [recording, speakers, voices],
        [*found, *results.downloads],
        concurrency_limit=jobs.PLACES,
        show_progress_on=message,
    )
    done = job.then(
        finished,
        [results.hypothesis, sound, words],
        [*switched, about_words, *results.outputs],
        **PRIVATE,
    )
    cancelled = {"cancels": [job, done], **AT_ONCE}
    stop.click(reset("Stopped.", False), None, [*switched, *found], **cancelled)
    others = [recording.upload, recording.clear, recording.start_recording]
    gr.on(others, reset("", False), None, [*switched, *found], **cancelled)
    example.click(lambda: (str(EXAMPLE), *reset("", False)()), None, [recording, *switched, *found], **cancelled)
    words.change(with_words, [results.hypothesis, words], [about_words, *results.outputs], **PRIVATE)


def build_words() -> tuple[gr.File, gr.Markdown]:
    with gr.Column():
        types = [".json", ".srt", ".vtt"]
        words = gr.File(label="Words: JSON, SRT or WebVTT", file_types=types, elem_id="words", height=120)
        return words, gr.Markdown(elem_id="about-words")


def build_live() -> None:
    gr.Markdown(
        "Press Record and talk: each speaker gets a row, about a second after they speak; the last "
        f"{LIVE_SECONDS:.0f} seconds are shown, and all of it once you stop. The sound itself is not kept.",
        elem_id="what-live-does",
    )
    microphone = gr.Audio(sources=["microphone"], streaming=True, type="numpy", label="Microphone", buttons=[])
    with gr.Accordion("Known voices (optional)", open=False, elem_id="live-optional"):
        voices = build_voices("live-voices")
    now = gr.Markdown(elem_id="now")
    live = gr.State(time_to_live=jobs.KEPT_SECONDS)
    results = Results(now, "live-")
    visible = [results.column, results.row]
    microphone.start_recording(
        lambda: (None, gr.update(visible=True), gr.update(visible=False), "", ""),
        None,
        [live, *visible, results.player, now],
        **AT_ONCE,
    )
    microphone.stream(
        speakers_live, [microphone, live, voices], [results.player, now, live], stream_every=0.5, show_progress="hidden"
    )
    microphone.stop_recording(live_ended, live, [*visible, *results.outputs], **PRIVATE)


def build() -> gr.Blocks:
    kept = (jobs.CLEANED_SECONDS, jobs.KEPT_SECONDS)
    with gr.Blocks(title="Fast Diarization", delete_cache=kept, analytics_enabled=False) as page:
        gr.Markdown(
            f"# Who speaks when\nOne small network on a CPU. {jobs.LIMITS} in any audio or video format. Nothing you "
            "upload is kept for more than an hour."
        )
        with gr.Tab("Recording"):
            build_recording()
        with gr.Tab("Live"):
            build_live()
    return page.queue(max_size=jobs.WAITING, default_concurrency_limit=4)


def main() -> None:
    theme = gr.themes.Default(primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["monospace"])
    css = (jobs.ROOT / "space" / "page.css").read_text(encoding="utf-8")
    build().launch(css=css, head=script(), theme=theme, max_file_size=jobs.MOST_BYTES)


if __name__ == "__main__":
    main()
