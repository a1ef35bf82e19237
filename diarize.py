"""Who speaks when in recordings of any length, format and number of speakers.

    python diarize.py call.wav meeting.mp4 --output results --plot
    python diarize.py interview.mp3 --num_speakers 2 --format srt --output results
    python diarize.py call.wav --reference call.rttm
    python diarize.py call.wav --model path/to/model.onnx          # numpy and onnxruntime, no torch
    accelerate launch diarize.py --dataset user/name --split test --output results

Without --output the answer goes to standard output. The exit code is 0 if every recording was done, 1 if one or more
could not be, 2 for wrong usage.
"""

import argparse
import os
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from diarization.formats import FORMATS, recording_name, to_annotation
from diarization.networks import ModelError, open_network
from modeling.audio_fast_diarization import SAMPLING_RATE, AudioError, audio_blocks
from modeling.linking_fast_diarization import Segment, SpeakerCount, diarize

DEFAULT_MODEL = Path(__file__).parent / "pretrained" / "lightweight-cnn"


def main() -> int:
    arguments = parse()
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    count = SpeakerCount(arguments.num_speakers, arguments.min_speakers, arguments.max_speakers)
    if arguments.output:
        check_writable(Path(arguments.output))
    if arguments.dataset:
        from diarization.dataset import diarize_dataset

        return diarize_dataset(arguments.dataset, arguments.split, arguments.model, Path(arguments.output), count)
    names = output_names(arguments.files)
    references = read_references(arguments.reference, names) if arguments.reference else {}
    network, settings = open_network(arguments.model)

    suffix, to_text = FORMATS[arguments.format]
    done = []
    failed = 0
    for number, (file, name) in enumerate(zip(arguments.files, names), 1):
        try:
            blocks = with_progress(audio_blocks(file), f"{number}/{len(names)} {name}")
            segments = diarize(network, blocks, settings, count)
            if arguments.output:
                target = Path(arguments.output) / f"{name}{suffix}"
                write(target, to_text(recording_name(name), segments))
                if arguments.plot:
                    plot(target.with_suffix(".png"), name, segments, references.get(name))
            else:
                sys.stdout.write(to_text(recording_name(name), segments))
        except (AudioError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            failed += 1
            continue
        done.append((name, segments))
    if references:
        print_scores(references, done)
    return 1 if failed else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("files", nargs="*", metavar="FILE", help="recordings: any container FFmpeg reads, video too")
    parser.add_argument("--model", default=str(DEFAULT_MODEL), help="directory, ONNX file or Hub id of a model")
    parser.add_argument("--output", metavar="DIR", help="directory for one file a recording")
    parser.add_argument("--format", choices=FORMATS, default="rttm", help="of the answers (default: rttm)")
    parser.add_argument("--plot", action="store_true", help="a picture of each recording beside its answer")
    parser.add_argument("--reference", metavar="RTTM", help="RTTM file or directory of them, to score the answers with")
    parser.add_argument("--num_speakers", type=int, help="how many people speak in each recording, if known")
    parser.add_argument("--min_speakers", type=int, help="at least so many")
    parser.add_argument("--max_speakers", type=int, help="at most so many")
    parser.add_argument("--dataset", metavar="HUB_ID", help="data set with an audio column, instead of files")
    parser.add_argument("--split", default="test", help="of the data set (default: test)")
    arguments = parser.parse_args()
    if bool(arguments.files) == bool(arguments.dataset):
        parser.error("give one or more recordings, or --dataset")
    if (arguments.dataset or arguments.plot) and not arguments.output:
        parser.error("--dataset and --plot need --output DIR")
    return arguments


def output_names(files: list[str]) -> list[str]:
    """The name of each recording, its file name without the suffix.

    Raises:
        ValueError: two recordings of one name.
    """
    names = [Path(file).stem for file in files]
    for name in names:
        if names.count(name) > 1:
            both = [file for file in files if Path(file).stem == name]
            raise ValueError(f"{both[0]} and {both[1]} would both be written as {name!r}; do them apart")
    return names


def check_writable(directory: Path):
    """Find out before hours of work, not after.

    Raises:
        ValueError: nothing can be written there.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=directory).close()
    except OSError as error:
        raise ValueError(f"--output {directory}: {error.strerror}; name a directory that can be written") from error


def write(target: Path, text: str):
    """Write a file whole or not at all."""
    part = target.with_name(f".{target.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, target)


def with_progress(blocks: Iterable[np.ndarray], title: str) -> Iterator[np.ndarray]:
    """The same blocks, with the minutes read so far on a terminal."""
    try:
        from tqdm import tqdm
    except ImportError:
        yield from blocks
        return
    with tqdm(desc=title, unit="min", disable=None, leave=False, bar_format="{desc}: {n:.1f} min read, {elapsed}") as bar:
        for block in blocks:
            yield block
            bar.update(len(block) / SAMPLING_RATE / 60)


def read_references(path: str, names: list[str]) -> dict:
    """References by recording, from an RTTM file or all those of a directory.

    Raises:
        ValueError, OSError: a file that cannot be read, or no reference for a recording.
    """
    from evaluation.recordings import read_rttm

    files = sorted(Path(path).glob("*.rttm")) if Path(path).is_dir() else [Path(path)]
    found = {name: reference for file in files for name, reference in read_rttm(file).items()}
    if len(names) == len(found) == 1:
        return dict(zip(names, found.values()))
    for name in names:
        if recording_name(name) not in found:
            raise ValueError(f"--reference {path} has no recording {recording_name(name)!r}, only: {', '.join(found)}")
    return {name: found[recording_name(name)] for name in names}


def plot(file: Path, name: str, segments: list[Segment], reference):
    from diarization.timeline import plot_timeline

    tracks = reference.itertracks(yield_label=True) if reference else ()
    plot_timeline(file, name, segments, [Segment(turn.start, turn.end, speaker, 1.0) for turn, _, speaker in tracks])


def print_scores(references: dict, done: list[tuple[str, list[Segment]]]):
    from evaluation.recordings import RecordingScores, to_markdown

    scores = RecordingScores()
    for name, segments in done:
        scores.add(references[name], to_annotation(name, segments))
    if done:
        print(to_markdown(scores.result()))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ModelError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
