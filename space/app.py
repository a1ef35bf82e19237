"""A page that shows who speaks when: in an uploaded or recorded file, or live from the microphone.

    python -m space.app                                                  # from the repository's root
    FAST_DIARIZATION_MODEL=runs/demo/model python -m space.app           # with another model

Runs on a CPU with the ONNX model; neither torch nor transformers is needed. `space/README.md` tells how it becomes a
Space on the Hub.
"""

import os
from collections.abc import Iterator
from itertools import islice
from math import ceil, floor
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import gradio as gr
import numpy as np

from diarization.backends import ONNX_FILE, open_network
from diarization.counts import other_counts
from diarization.formats import FORMATS
from diarization.names import recording_name, recording_stem
from modeling.audio_fast_diarization import SAMPLING_RATE, AudioError, audio_blocks
from modeling.counting_fast_diarization import CountEstimate
from modeling.segments_fast_diarization import Segment, join_segments
from modeling.streaming_fast_diarization import StreamingDiarizer
from space import jobs

MODEL = Path(os.environ.get("FAST_DIARIZATION_MODEL", "pretrained/lightweight-cnn"))
NETWORK, SETTINGS = open_network(str(MODEL / ONNX_FILE))
AUTOMATIC = "automatic"
DOWNLOADS = ("rttm", "srt", "json")
COLOURS = ("#2f6fdb", "#e0662f", "#2e9e5b", "#b5469b", "#8a6d00", "#0e93a3", "#c43c4c", "#6d5bd0", "#5d6b78", "#a0622d")
LIVE_SECONDS = 40.0
LOWEST_RATE, HIGHEST_RATE = 8_000, 384_000
TICK_SECONDS = (1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
MOST_TICKS = 5
CSS = """
.timeline {font-size: 13px; padding: 4px 18px 4px 0}
.timeline .row {display: flex; align-items: center; margin: 4px 0}
.timeline .name {flex: 0 0 100px}
.timeline .track {position: relative; flex: 1; height: 24px; border-radius: 4px; background: rgba(128,128,128,.14)}
.timeline .track i {position: absolute; top: 2px; bottom: 2px; border-radius: 2px; min-width: 2px}
.timeline .axis {position: relative; margin-left: 100px; height: 18px; opacity: .7}
.timeline .axis span {position: absolute; transform: translateX(-50%)}
#summary {min-height: 40px}
#recording ::part(scroll) {scrollbar-width: none}
@media (max-width: 480px) {#segments {font-size: 12px} #segments .cell-wrap {padding: 4px}}
"""


def clock(seconds: float, decimals: int = 0) -> str:
    minutes, rest = divmod(round(seconds, decimals), 60)
    return f"{int(minutes)}:{rest:0{3 + decimals if decimals else 2}.{decimals}f}"


def timeline(segments: list[Segment], begin: float, end: float) -> str:
    """HTML with one row a speaker from `begin` to `end` (seconds), darker where more confident.

    Whoever was heard before `begin` keeps the row and the colour.
    """
    span = max(end - begin, 1e-3)
    rows = []
    for number, speaker in enumerate(sorted({s.speaker for s in segments})):
        bars = "".join(
            f'<i title="{clock(s.start, 1)} to {clock(s.end, 1)}" style="left:{100 * (start - begin) / span:.3f}%;'
            f"width:{100 * (s.end - start) / span:.3f}%;background:{COLOURS[number % len(COLOURS)]};"
            f'opacity:{0.35 + 0.65 * s.confidence:.2f}"></i>'
            for s in segments
            if s.speaker == speaker and s.end > (start := max(s.start, begin))
        )
        rows.append(f'<div class="row"><div class="name">{speaker}</div><div class="track">{bars}</div></div>')
    step = next((step for step in TICK_SECONDS if span / step < MOST_TICKS), ceil(span / MOST_TICKS))
    ticks = range(ceil(begin / step) * step, floor(end) + 1, step)
    marks = "".join(f'<span style="left:{100 * (tick - begin) / span:.3f}%">{clock(tick)}</span>' for tick in ticks)
    return f'<div class="timeline">{"".join(rows)}<div class="axis">{marks}</div></div>'


def speakers_of_file(recording: str | None, speakers: str) -> Iterator[tuple]:
    """How far a recording is, then the answer for it, each in the order of the outputs of the first tab."""
    if recording is None:
        yield nothing("**error:** upload or record something first")
        return
    file, message = Path(recording), {}
    yield nothing("Listening ...")
    try:
        for message in jobs.diarize_apart(MODEL / ONNX_FILE, file, None if speakers == AUTOMATIC else int(speakers)):
            if "warning" in message:
                gr.Warning(message["warning"])
            elif "segments" not in message:
                yield f"Listening: {clock(message['heard'])} ...", *([gr.skip()] * (len(DOWNLOADS) + 4))
    except jobs.JobError as error:
        yield nothing(f"**error:** {error}")
        return
    segments = [Segment(*values) for values in message["segments"]]
    if not segments:
        yield nothing(f"**error:** {file.name}: no speech found")
        return
    with TemporaryDirectory(prefix="fast-diarization-") as directory:  # the page has a copy before the next line
        count = CountEstimate(*message["count"])
        yield answer_of(segments, count, message["heard"], recording, Path(directory))


def answer_of(segments: list[Segment], count: CountEstimate, seconds: float, recording: str, directory: Path) -> tuple:
    """The outputs of the first tab; the downloads are written to `directory`."""
    file = Path(recording)
    table = [[clock(s.start, 1), clock(s.end, 1), s.speaker, f"{s.confidence:.2f}"] for s in segments]
    downloads = []
    for name in DOWNLOADS:
        suffix, to_text = FORMATS[name]
        target = directory / f"{recording_stem(file)}{suffix}"
        target.write_text(to_text(recording_name(recording_stem(file)), segments), encoding="utf-8")
        downloads.append(gr.DownloadButton(value=target, interactive=True))
    summary = f"**{count.found} speaker{'s' * (count.found > 1)}** in {len(segments)} segments of {clock(seconds)}"
    if not count.sure:
        summary += f"; {other_counts(count)}; choose one of them above and start again if that is not so"
    bars = timeline(segments, 0.0, seconds)
    return summary, bars, gr.Dataframe(table, visible=True), (recording, segments), None, *downloads


def nothing(reason: str) -> tuple:
    """The same outputs where there is no answer."""
    downloads = [gr.DownloadButton(value=None, interactive=False) for _ in DOWNLOADS]
    return reason, "", gr.Dataframe(visible=False), None, None, *downloads


def excerpt(answer: tuple[str, list[Segment]], chosen: gr.SelectData) -> gr.Audio:
    """The sound of the segment in the row that was clicked, from the recording that was diarized."""
    recording, segments = answer
    segment = segments[chosen.index[0]]
    first, last = int(segment.start), ceil(segment.end)
    try:
        samples = np.concatenate(list(islice(audio_blocks(recording, 1.0), first, last)))
    except AudioError:
        raise gr.Error("the recording is deleted by now; upload it again to hear its segments") from None
    start, end = (round((second - first) * SAMPLING_RATE) for second in (segment.start, segment.end))
    label = f"{segment.speaker}, {clock(segment.start, 1)} to {clock(segment.end, 1)}"
    sound = (samples[start:end].clip(-1, 1) * 32767).astype(np.int16)
    return gr.Audio((SAMPLING_RATE, sound), label=label)


class Live:
    """One visitor's microphone: what was said so far."""

    def __init__(self):
        self.diarizer = StreamingDiarizer(NETWORK, SETTINGS)
        self.resampler, self.sampling_rate = None, 0
        self.segments: list[Segment] = []
        self.seconds = 0.0

    def hear(self, sampling_rate: int, samples: np.ndarray):
        """16 bit samples, (samples,) or (samples, channels), at the rate of the browser, which may change.

        Raises:
            ValueError: no microphone has that rate.
        """
        if not LOWEST_RATE <= sampling_rate <= HIGHEST_RATE:
            raise ValueError(f"a microphone at {sampling_rate} Hz cannot be used; choose another one in the browser")
        if sampling_rate != self.sampling_rate:
            self._take(self.resampler.resample(None) if self.resampler else [])
            self.resampler, self.sampling_rate = av.AudioResampler("fltp", "mono", SAMPLING_RATE), sampling_rate
        mono = samples.reshape(len(samples), -1).mean(axis=1, dtype=np.float32) / 32768
        frame = av.AudioFrame.from_ndarray(mono[None], "fltp", "mono")
        frame.sample_rate = sampling_rate
        self._take(self.resampler.resample(frame))
        self.seconds += len(mono) / sampling_rate
        self.segments = join_segments(self.segments)

    def _take(self, frames: list[av.AudioFrame]):
        for frame in frames:
            self.segments += self.diarizer.push(frame.to_ndarray()[0])


def speakers_live(sound: tuple[int, np.ndarray] | None, live: Live | None):
    """What the microphone has heard lately, and the state for the next piece of sound."""
    live = live or Live()
    if sound is not None and len(sound[1]):
        try:
            live.hear(*sound)
        except ValueError as error:
            return gr.skip(), f"**error:** {error}", live
    end = max(live.seconds, LIVE_SECONDS)
    begin = end - LIVE_SECONDS
    now = sorted({s.speaker for s in live.segments if s.end > live.seconds - 1.5})
    return timeline(live.segments, begin, end), f"**Speaking now:** {', '.join(now) or 'nobody'}", live


def build() -> gr.Blocks:
    kept = (jobs.CLEANED_SECONDS, jobs.KEPT_SECONDS)
    with gr.Blocks(title="Fast Diarization", delete_cache=kept, analytics_enabled=False) as page:
        gr.Markdown(
            f"# Who speaks when\nOne small network on a CPU. {jobs.LIMITS} in any audio or video format. Nothing you "
            "upload is kept for more than an hour."
        )
        with gr.Tab("Recording"):
            recording = gr.Audio(
                sources=["upload", "microphone"], type="filepath", label="Recording", buttons=[], elem_id="recording"
            )
            with gr.Row(equal_height=True):
                choices = [AUTOMATIC, *map(str, range(1, 11))]
                speakers = gr.Dropdown(choices, value=AUTOMATIC, label="Number of speakers", elem_id="speakers")
                start = gr.Button("Find the speakers", variant="primary", elem_id="start")
                stop = gr.Button("Stop", elem_id="stop")
            summary = gr.Markdown(elem_id="summary")
            bars = gr.HTML(elem_id="timeline")
            table = gr.Dataframe(
                headers=["start", "end", "speaker", "confidence"],
                label="Segments: click one to hear it",
                interactive=False,
                visible=False,
                max_height=320,
                elem_id="segments",
            )
            sound = gr.Audio(label="Segment", autoplay=True, interactive=False, buttons=["download"], elem_id="sound")
            with gr.Row():
                downloads = [
                    gr.DownloadButton(f"Download {name.upper()}", interactive=False, elem_id=name) for name in DOWNLOADS
                ]
            answer = gr.State()
            outputs = [summary, bars, table, answer, sound, *downloads]
            job = start.click(speakers_of_file, [recording, speakers], outputs, concurrency_limit=jobs.PLACES)
            stop.click(lambda: nothing("Stopped."), None, outputs, cancels=job, queue=False)
            table.select(excerpt, answer, sound)
        with gr.Tab("Live"):
            gr.Markdown(
                "Press Record and talk: each voice gets a row, about a second after it speaks; the last "
                f"{LIVE_SECONDS:.0f} seconds are shown. Sound is deleted as uploads are. Recording again starts anew.",
                elem_id="what-live-does",
            )
            microphone = gr.Audio(sources=["microphone"], streaming=True, type="numpy", label="Microphone")
            now = gr.Markdown(elem_id="now")
            live_bars = gr.HTML(elem_id="live-timeline")
            live = gr.State(time_to_live=jobs.KEPT_SECONDS)
            microphone.start_recording(lambda: None, None, live)
            microphone.stream(
                speakers_live, [microphone, live], [live_bars, now, live], stream_every=0.5, show_progress="hidden"
            )
    return page.queue(max_size=jobs.WAITING, default_concurrency_limit=4)


def main() -> None:
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    build().launch(css=CSS, theme=theme, max_file_size=jobs.MOST_BYTES)


if __name__ == "__main__":
    main()
