"""Draw the pictures of README and docs into docs/pictures.

python -m docs.pictures                                       # those that need no model
python -m docs.pictures --model pretrained/lightweight-cnn    # and the hypothesis of a model, for its card too
"""

from pathlib import Path

from common.program import end_quietly
from docs.flags import of_pictures

if __name__ == "__main__":
    end_quietly()
    of_pictures(__doc__)  # --help and wrong usage, before imports that take seconds

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from data.conversations import SAMPLING_RATE
from data.corpora import open_corpus
from data.streaming import ConversationStream, StreamConfig
from diarization.backends import open_network
from diarization.timeline import plot_timeline
from docs.example import simulate
from modeling import FastDiarizationConfig, FastDiarizationForAudioFrameClassification
from modeling.linking_fast_diarization import diarize
from modeling.segments_fast_diarization import Segment
from modeling.settings_fast_diarization import SpeakerCount

PICTURES = Path(__file__).parent / "pictures"
SHARED, CNN, GRU, OUTPUT, GREY = "#dce6f2", "#fbe3d0", "#d9eed9", "#f3e2f3", "#eeeeee"
COLOURS = ("#2f6fdb", "#e0662f")
LEFT, WIDTH, MIDDLE = 3.2, 4.6, 5.5
"""Of the column of boxes in the picture of the network."""
HUES = ("#2f6fdb", "#e0662f", "#2e9e5b", "#b5469b", "#8a6d00", "#0e93a3", "#c43c4c", "#6d5bd0")
"""Of the blocks of the stream."""


def save(figure: Figure, name: str) -> None:
    figure.savefig(PICTURES / f"{name}.png", dpi=110, format="png", metadata={"Software": None})
    print(PICTURES / f"{name}.png")


def blank(width: float, height: float):
    """A figure and axes in inches, without a frame."""
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(0.25, height)
    axes.axis("off")
    return figure, axes


def box(axes, x: float, y: float, width: float, height: float, text: str, colour: str, size: float = 9.5) -> None:
    """A box with text, its lower left corner at (x, y)."""
    style = "round,pad=0,rounding_size=0.08"
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=style, facecolor=colour, edgecolor="#444444"))
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=size, linespacing=1.35)


def arrow(axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "#444444", "shrinkA": 0, "shrinkB": 0})


def count(*modules) -> str:
    """Parameters of modules, as in 2.3 M or 131 k."""
    number = sum(p.numel() for module in modules for p in module.parameters())
    return f"{number / 1e6:.2f} M" if number >= 1e6 else f"{number / 1e3:.0f} k"


def draw_architecture() -> None:
    """Both encoders, with the parameters counted in the models themselves."""
    cnn, gru = (
        FastDiarizationForAudioFrameClassification(FastDiarizationConfig(encoder_type=name))
        for name in ("lightweight-cnn", "attention-gru")
    )
    figure, axes = blank(11, 11.6)
    draw_trunk(axes, cnn.fast_diarization)
    draw_contexts(axes, cnn, gru)
    draw_skip(axes, cnn.fast_diarization)
    draw_outputs(axes, cnn)
    save(figure, "architecture")


def draw_trunk(axes, model) -> None:
    """From the waveform to the features of every 80 ms, which both encoders share."""
    log_mel = "log-mel: 25 ms windows, 64 bands,\ngain and offset removed (no parameters)"
    stem = (
        f"stem: 2 convolutions, stride 2 each, 64 → 128 → 256, {count(model.stem)}\n"
        f"biased by mean and deviation of each band, {count(model.background)}"
    )
    affinity = f"affinity pooling: each frame + the mean of\nframes that sound alike, {count(model.affinity)}"
    rows = [
        (10.85, "waveform, 16 kHz, any length", GREY, ""),
        (9.95, log_mel, GREY, "10 ms"),
        (9.0, stem, SHARED, "40 ms"),
        (8.05, f"local: 2 residual convolutions\n{count(model.local)}", SHARED, "40 ms"),
        (7.1, f"down: stride 2, then a residual convolution\n{count(model.down)}", SHARED, "80 ms"),
        (6.15, affinity, SHARED, "80 ms"),
    ]
    for number, (y, text, colour, step) in enumerate(rows):
        box(axes, LEFT, y, WIDTH, 0.62, text, colour)
        if number:
            arrow(axes, (MIDDLE, rows[number - 1][0]), (MIDDLE, y + 0.62))
            axes.text(LEFT + WIDTH + 0.12, y + 0.31, step, fontsize=9, color="#444444", va="center")


def draw_contexts(axes, cnn, gru) -> None:
    """The part in which the encoders differ."""
    convolutions = "5 residual convolutions, width 3,\ndilated by 1, 4, 8, 16, 2:\nsees 2.5 s to either side\n"
    layers = "2 bidirectional GRU layers,\nthen 2 self-attention layers of 4 heads:\nsees the whole window\n"
    contexts = ((0.35, cnn, CNN, convolutions, 1), (5.85, gru, GRU, layers, -1))
    for x, model, colour, text, inwards in contexts:
        box(axes, x, 4.2, 4.8, 1.05, text + count(model.fast_diarization.context), colour)
        title = f"encoder_type {model.config.encoder_type}: {count(model)} in all"
        axes.text(x + 2.4, 5.37, title, ha="center", fontsize=9.5, weight="bold")
        arrow(axes, (MIDDLE - 1.6 * inwards, 6.15), (x + 2.4 + 0.9 * inwards, 5.58))
        arrow(axes, (x + 2.4, 4.2), (x + 2.4 + 0.9 * inwards, 3.77))
    axes.text(MIDDLE, 4.72, "or", ha="center", va="center", fontsize=11)


def draw_skip(axes, model) -> None:
    """Where the features of every 40 ms come back."""
    box(axes, LEFT, 3.15, WIDTH, 0.62, f"up to 40 ms + skip connection, fuse: {count(model.up, model.fuse)}", SHARED)
    axes.plot([LEFT, 0.15, 0.15, LEFT], [8.36, 8.36, 3.46, 3.46], color="#444444", lw=1)
    axes.annotate("", (LEFT, 3.46), (LEFT - 0.2, 3.46), arrowprops={"arrowstyle": "-|>", "color": "#444444"})
    axes.text(0.25, 7.6, "skip,\n40 ms", fontsize=8.5, color="#444444", va="center")


def draw_outputs(axes, model) -> None:
    """The heads and what they give."""
    sets = ["{" + ", ".join(str(s + 1) for s in members) + "}" for members in model.speaker_sets]
    powerset = (
        f"powerset head: {len(sets)} sets {', '.join(sets)},\ntwo outputs per 40 ms: every 20 ms\n"
        f"{count(model.classifier)}"
    )
    embeddings = (
        "embeddings: mean and deviation of the 80 ms features\nover each speaker's non-overlapped frames\n"
        f"{count(model.speaker_projection)}"
    )
    box(axes, 0.35, 1.75, 4.8, 0.8, powerset, OUTPUT)
    box(axes, 5.85, 1.75, 4.8, 0.8, embeddings, OUTPUT)
    arrow(axes, (MIDDLE - 1.2, 3.15), (3.4, 2.55))
    arrow(axes, (5.15, 2.15), (5.85, 2.15))
    axes.text(5.5, 2.36, "who is\nactive", ha="center", va="center", fontsize=8.5, color="#444444")
    axes.plot([LEFT + WIDTH, 10.85, 10.85, 10.3], [7.2, 7.2, 3.0, 3.0], color="#444444", lw=1)
    axes.annotate("", (10.3, 2.55), (10.3, 3.0), arrowprops={"arrowstyle": "-|>", "color": "#444444"})
    axes.text(9.3, 7.28, "features for embeddings", fontsize=8.5, color="#444444")
    speakers, size = model.config.num_speakers, model.config.embedding_size
    logits = f"logits (batch, frames, {speakers}): log-odds that\na speaker is active"
    box(axes, 0.35, 0.5, 4.8, 0.62, logits, GREY)
    box(axes, 5.85, 0.5, 4.8, 0.62, f"speaker_embeddings (batch, {speakers}, {size}):\nunit vectors", GREY)
    arrow(axes, (2.75, 1.75), (2.75, 1.12))
    arrow(axes, (8.25, 1.75), (8.25, 1.12))


def draw_conversation() -> None:
    """A simulated conversation, one training window of it, and its labels."""
    waveform, segments = simulate("demo", 18.0, seed=3)
    figure = Figure(figsize=(12, 4), layout="constrained")
    wave, turns = figure.subplots(2, 1, sharex=True, height_ratios=(1.4, 1))
    time = np.arange(len(waveform)) / SAMPLING_RATE
    wave.plot(time[::8], waveform[::8], color="#555555", lw=0.4)
    wave.set_yticks([])
    wave.set_ylabel("waveform")
    names = list(dict.fromkeys(s.speaker for s in segments))
    for row, name in enumerate(names):
        mine = [(s.start, s.end - s.start) for s in segments if s.speaker == name]
        turns.broken_barh(mine, (row - 0.35, 0.7), color=COLOURS[row % 2])
    turns.set_yticks(range(len(names)), names)
    turns.set_ylim(len(names) - 0.5, -0.5)
    turns.set_xlabel("seconds")
    turns.set_xlim(0, len(waveform) / SAMPLING_RATE)
    for axes in (wave, turns):
        axes.axvspan(6, 9, color="#ffd94a", alpha=0.35, lw=0, zorder=0)
    wave.set_title("Two synthetic voices of the demo corpus; in yellow one training window of 3 s", fontsize=10)
    save(figure, "conversation")


def draw_stream() -> None:
    """How the n-th batch is found: real numbers of a small corpus of 24 units."""

    class Units(list):
        """Stands for a corpus of which only the number of units matters."""

        held_out, corpus = None, None

    stream = ConversationStream(Units(range(24)), StreamConfig(units_per_block=4, lanes=4, seed=0))
    figure, axes = blank(11.5, 6.6)
    draw_blocks(axes, stream)
    draw_lanes(axes)
    axes.text(
        0.3,
        0.62,
        "A batch is a function of (seed, block, number in the block): no generator state, no shuffle buffer.\n"
        "The place of the stream is the lane whose turn it is and (block, number) of each. Blocks here have 3 batches.",
        fontsize=9.5,
        va="center",
        linespacing=1.4,
    )
    save(figure, "stream")


def draw_blocks(axes, stream: ConversationStream) -> None:
    """The units of a corpus in the colours of their blocks, and the blocks."""
    blocks = [stream.units_of(block) for block in range(stream.blocks_per_pass + 2)]
    units_lie = "24 units as they lie in the corpus (row groups or tars; neighbours are the same few people)"
    axes.text(0.3, 6.3, units_lie, fontsize=10)
    owner = {unit: block for block in range(stream.blocks_per_pass) for unit in blocks[block]}
    for unit in range(24):
        box(axes, 0.3 + 0.455 * unit, 5.7, 0.4, 0.4, str(unit), HUES[owner[unit]] + "55", 9)
    cut = "blocks: a seeded permutation of all units, cut; a new one for every pass over the corpus"
    axes.text(0.3, 5.25, cut, fontsize=10)
    for block, units in enumerate(blocks):
        again = block >= stream.blocks_per_pass
        text = f"block {block}: {', '.join(map(str, sorted(units)))}" + ("  (pass 2)" if again else "")
        hue = HUES[block] + ("22" if again else "55")
        box(axes, 0.3 + 2.75 * (block % 4), 4.6 - 0.5 * (block // 4), 2.55, 0.4, text, hue, 9)


def draw_lanes(axes) -> None:
    """Whose turn it is: batch n comes from lane n mod 4."""
    dealt = "lanes: block g goes to lane g mod 4; batch n of the stream comes from lane n mod 4"
    axes.text(0.3, 3.65, dealt, fontsize=10)
    for lane in range(4):
        y = 2.95 - 0.6 * lane
        axes.text(0.3, y + 0.2, f"lane {lane}", fontsize=9.5, va="center")
        for turn in range(6):
            block = lane + (4 if turn >= 3 else 0)
            text = f"batch {4 * turn + lane}: block {block}, {turn % 3}"
            box(axes, 1.2 + 1.68 * turn, y, 1.55, 0.42, text, HUES[block] + "55", 9)


def draw_hypothesis(model: Path) -> None:
    """The hypothesis and the reference of a recording of synthetic voices, into the model directory and `PICTURES`."""
    from data.simulated_recordings import SimulatedRecordings

    recording = SimulatedRecordings(open_corpus("demo", "validation")).make(4, 60.0, 2)
    network, settings = open_network(str(model))
    segments = diarize(network, [recording.waveform], settings, SpeakerCount(num_speakers=2))
    names = {
        speaker: f"speaker {number + 1}" for number, speaker in enumerate(dict.fromkeys(t[2] for t in recording.turns))
    }
    reference = [Segment(float(start), float(end), names[speaker], 1.0) for start, end, speaker in recording.turns]
    title = "Who speaks when: one minute of two synthetic voices, number of speakers given"
    for file in (model / "timeline.png", PICTURES / "timeline.png"):
        plot_timeline(file, title, segments, reference)
        print(file)


def main() -> None:
    arguments = of_pictures(__doc__)
    PICTURES.mkdir(exist_ok=True)
    draw_architecture()
    draw_conversation()
    draw_stream()
    if arguments.model:
        draw_hypothesis(arguments.model)


if __name__ == "__main__":
    main()
