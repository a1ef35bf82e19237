"""Who speaks when in recordings of any length, container and number of speakers.

    python diarize.py call.wav                                  a timeline here, the answer in results/call.rttm
    python diarize.py *.mp4 --output answers --plot             many files, videos too, and a picture of each
    python diarize.py interview.mp3 --num_speakers 2 --format rttm,srt,audacity
    python diarize.py call.wav --reference call.rttm            scored: DER and its parts
    python diarize.py call.wav --channels separate              a call with one speaker on each channel
    ffmpeg -i ... -f wav - | python diarize.py -                standard input
    python diarize.py call.wav --model runs/demo/model          a model of your own
    python diarize.py call.wav --model model.onnx               numpy and onnxruntime only, no torch
    accelerate launch --multi_gpu diarize.py *.wav              a share of the files for every process
    accelerate launch diarize.py --dataset user/name --split test --output answers

The last one spreads a data set over all processes and machines it is launched on, writes the answers as a data set
(`load_dataset("answers")`), and continues where it stopped if the command is run again.

Exit code: 0 if every recording was done, 1 if one or more could not be (the others are), 2 for wrong usage.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from common.output import make_directory
from common.processes import gather, join
from diarization.backends import open_network
from diarization.formats import FORMATS, recording_name, to_annotation
from diarization.timeline import plot_timeline, text_timeline
from modeling.audio_fast_diarization import (
    MIX,
    SAMPLING_RATE,
    SEPARATE,
    AudioNotice,
    AudioWarning,
    audio_blocks,
    check_choice,
    declared_seconds,
)
from modeling.linking_fast_diarization import diarize
from modeling.segments_fast_diarization import Segment
from modeling.separate_fast_diarization import diarize_channels
from modeling.settings_fast_diarization import SpeakerCount

STDIN = "-"
DEFAULT_MODEL = os.path.relpath(Path(__file__).parent / "pretrained" / "lightweight-cnn")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code; whatever hinders it is one line on standard error."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # of a terminal that knows no block characters
    with warnings.catch_warnings():
        warnings.simplefilter("always", AudioWarning)
        warnings.simplefilter("always", AudioNotice)
        warnings.showwarning = show_warning
        try:
            return run(parse(arguments))
        except ImportError as error:
            print_error(f"{error}; pip install -r requirements.txt has all that is needed")
        except (ValueError, OSError) as error:
            print_error(error)
    return 2


def run(arguments: argparse.Namespace) -> int:
    count = SpeakerCount(arguments.num_speakers, arguments.min_speakers, arguments.max_speakers)
    check_choice(arguments.track, arguments.channels)
    output = Path(arguments.output)
    if arguments.dataset:
        from diarization.hub_dataset import diarize_dataset

        make_directory(output, "--output")
        return diarize_dataset(arguments.dataset, arguments.config, arguments.split, arguments.model, output, count)

    names = output_names(arguments.files)
    references = read_references(arguments.reference, names, output) if arguments.reference else {}
    network, settings = open_network(arguments.model)
    make_directory(output, "--output")
    rank, world_size = join()
    answers: dict[str, list[Segment]] = {}
    for number, (file, name) in list(enumerate(zip(arguments.files, names), 1))[rank::world_size]:
        try:
            heard = {"track": arguments.track, "channels": arguments.channels}
            blocks = with_progress(file, f"{number}/{len(names)} {name}", rank, **heard)
            if arguments.channels == SEPARATE:
                segments = diarize_channels(network, blocks, settings)
            else:
                segments = diarize(network, blocks, settings, count)
            targets = [output / f"{name}{FORMATS[choice][0]}" for choice in arguments.format]
            for choice, target in zip(arguments.format, targets):
                write(target, FORMATS[choice][1](recording_name(name), segments))
            if arguments.plot:
                targets.append(output / f"{name}.png")
                plot_timeline(targets[-1], name, segments, _segments(references.get(name)))
        except (ValueError, OSError) as error:
            print_error(error)
            continue
        answers[name] = segments
        print(f"{file} -> {', '.join(map(str, targets))}\n{text_timeline(segments)}", flush=True)
    answers = {name: segments for share in gather(answers, world_size) for name, segments in share.items()}
    if references and answers and rank == 0:
        print_scores(references, {name: answers[name] for name in names if name in answers})
    gather(None, world_size)  # a process that left with an error would end the one that prints
    return 0 if len(answers) == len(names) else 1


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="recordings: any container FFmpeg reads, video too; - is standard input",
    )
    parser.add_argument("--output", default="results", metavar="DIR", help="where answers go (default: %(default)s)")
    parser.add_argument(
        "--format", type=formats, metavar="NAMES", help=f"one or more of {','.join(FORMATS)} (default: rttm)"
    )
    parser.add_argument("--plot", action="store_true", help="a picture of each recording beside its answer, PNG")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="directory, ONNX file or Hub id (default: %(default)s)")
    parser.add_argument("--num_speakers", type=int, metavar="N", help="how many people speak in each, if known")
    parser.add_argument("--min_speakers", type=int, metavar="N", help="least number of speakers")
    parser.add_argument("--max_speakers", type=int, metavar="N", help="largest number of speakers")
    parser.add_argument("--track", type=int, metavar="N", help="the audio track to hear (default: all but dubs, mixed)")
    parser.add_argument(
        "--channels",
        type=lambda value: int(value) if value.isdecimal() else value,
        default=MIX,
        metavar="WHICH",
        help=f"{MIX}, the number of a channel, or {SEPARATE}: one speaker on each (default: %(default)s)",
    )
    parser.add_argument("--reference", metavar="RTTM", help="RTTM file or directory of them, to score the answers with")
    parser.add_argument("--dataset", metavar="HUB_ID", help="data set with an audio column, instead of files")
    parser.add_argument("--config", metavar="NAME", help="configuration of the data set, such as ihm")
    parser.add_argument("--split", default="test", help="of the data set (default: %(default)s)")
    arguments = parser.parse_intermixed_args(arguments)
    if bool(arguments.files) == bool(arguments.dataset):
        parser.error("give one or more recordings, or --dataset HUB_ID")
    if arguments.dataset and (arguments.format or arguments.plot or arguments.reference):
        parser.error("--dataset writes Parquet; --format, --plot and --reference are for files")
    if arguments.dataset and (arguments.track or arguments.channels != MIX):
        parser.error("--track and --channels are for files")
    if arguments.channels == SEPARATE and (arguments.num_speakers or arguments.min_speakers or arguments.max_speakers):
        parser.error(f"with --channels {SEPARATE} there is one speaker on each channel; give no number of speakers")
    if arguments.config and not arguments.dataset:
        parser.error("--config is for --dataset")
    arguments.format = arguments.format or ["rttm"]
    return arguments


def formats(names: str) -> list[str]:
    """The value of --format."""
    for name in names.split(","):
        if name not in FORMATS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(FORMATS)}")
    return names.split(",")


def output_names(files: list[str]) -> list[str]:
    """The name of each recording, its file name without the suffix.

    Raises:
        ValueError: two recordings of one name.
    """
    by_name: dict[str, str] = {}
    for file in files:
        other = by_name.setdefault("stdin" if file == STDIN else Path(file).stem, file)
        if other is not file:
            raise ValueError(
                f"{other} and {file} would both be written as {Path(file).stem!r}; use another --output for one"
            )
    return list(by_name)


def write(target: Path, text: str):
    """Write a file whole or not at all."""
    part = target.with_name(f".{target.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, target)


def with_progress(file: str, title: str, line: int, **heard) -> Iterator[np.ndarray]:
    """The recording in blocks, with a bar in minutes on a terminal, so many lines down."""
    blocks = audio_blocks(sys.stdin.buffer if file == STDIN else file, **heard)
    try:
        from tqdm import tqdm
    except ImportError:
        yield from blocks
        return
    seconds = declared_seconds(file) if Path(file).is_file() else None  # a pipe can be read but once
    total = seconds and round(seconds / 60, 1)
    with tqdm(desc=title, total=total, unit="min", disable=None, leave=False, position=line) as bar:
        for block in blocks:
            yield block
            bar.update(round(block.shape[-1] / SAMPLING_RATE / 60, 3))


def print_error(error: Exception | str):
    print("error:", *str(error).split(), file=sys.stderr)


def show_warning(message, category, *location):
    kind = {AudioWarning: "warning", AudioNotice: "note"}.get(category, category.__name__)
    print(f"{kind}: {message}", file=sys.stderr)


def read_references(path: str, names: list[str], output: Path) -> dict:
    """References by recording, from an RTTM file or all those of a directory.

    Raises:
        ValueError: a file that cannot be read, or that an answer would replace, or no reference for a recording.
    """
    from data.rttm import read_rttm

    files = sorted(Path(path).glob("*.rttm")) if Path(path).is_dir() else [Path(path)]
    for name in names:
        if (output / f"{name}.rttm").resolve() in [file.resolve() for file in files]:
            raise ValueError(f"the answer would replace the reference {output / name}.rttm; name another --output")
    found = {}
    try:
        for file in files:
            turns = read_rttm(file)
            if twice := found.keys() & turns.keys():
                raise ValueError(f"--reference {path} has more than one reference of {min(twice)!r}; keep the true one")
            found |= turns
    except OSError as error:
        raise ValueError(
            f"--reference {path}: {error.strerror}; give an RTTM file or a directory of RTTM files"
        ) from error
    if len(names) == len(found) == 1:
        return dict(zip(names, found.values()))
    for name in names:
        if recording_name(name) not in found:
            raise ValueError(
                f"--reference {path} has no recording {recording_name(name)!r}, only: {', '.join(found) or 'none'}; "
                "a recording is known there by its file name"
            )
    return {name: found[recording_name(name)] for name in names}


def print_scores(references: dict, answers: dict[str, list[Segment]]):
    from evaluation.recording_scores import RecordingScores, recording_table

    scores = RecordingScores()
    for name, segments in answers.items():
        scores.add(references[name], to_annotation(name, segments))
    print(recording_table(scores.result()))


def _segments(annotation) -> list[Segment]:
    turns: Iterable = annotation.itertracks(yield_label=True) if annotation else ()
    return [Segment(turn.start, turn.end, speaker, 1.0) for turn, _, speaker in turns]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
