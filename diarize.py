"""Who speaks when in recordings of any length, container and number of speakers.

    python diarize.py call.wav                                  a timeline here, RTTM in results/call.rttm
    python diarize.py *.mp4 --output found --plot               many files, videos too, and a picture of each
    python diarize.py interview.mp3 --num_speakers 2 --format rttm,srt,audacity
    python diarize.py call.wav --reference call.rttm            scored: DER and its parts
    python diarize.py call.wav --channels separate              a call with one speaker on each channel
    python diarize.py call.wav --words asr.json                 who said what: words of a speech recogniser
    python diarize.py --enroll Anna=anna.wav Ben=ben.wav --voices voices.safetensors
    python diarize.py call.wav --voices voices.safetensors      people who are known, by their names
    python diarize.py --rename SPEAKER_00=Anna results/call.rttm
    ffmpeg -i ... -f wav - | python diarize.py -                standard input
    python diarize.py call.wav --model runs/demo/model          a model of your own
    python diarize.py call.wav --model model.onnx               numpy and onnxruntime only, no torch
    accelerate launch --multi_gpu diarize.py *.wav              a share of the files for every process
    accelerate launch diarize.py --dataset user/name --split test --output found

The last one spreads a data set over all processes and machines it is launched on, writes the hypotheses as a data
set (`load_dataset("found")`), and continues where it stopped if the command is run again.

Exit code: 0 if every recording was done, 1 if one or more could not be (the others are) or standard output cannot be
written, 2 for wrong usage.
"""

import argparse
import os
import sys
import warnings
from pathlib import Path

from common.program import OF_RECORDINGS, end_quietly

if __name__ == "__main__":
    end_quietly(OF_RECORDINGS)

from common.addresses import MODEL
from common.flags import FlagParser, split_flags
from common.output import make_directory
from common.processes import gather, join
from common.terminal import OutputLost, report, say, warn
from diarization.backends import open_network
from diarization.counts import count_facts, count_sentence
from diarization.enrolling import enrol_people
from diarization.formats import FORMATS, WITH_WORDS, to_annotation, to_txt
from diarization.names import find_recordings
from diarization.outputs import Outputs
from diarization.progress import with_progress
from diarization.providers import PROVIDERS
from diarization.renaming import rename_files
from diarization.timeline import MOST_LISTED, text_timeline
from diarization.words import find_words, read_words, with_speakers
from modeling.audio_fast_diarization import MIX, SAMPLING_RATE, SEPARATE, AudioNotice, AudioWarning, check_choice
from modeling.counting_fast_diarization import CountEstimate
from modeling.enrolment_fast_diarization import KnownVoices, name_speakers
from modeling.linking_fast_diarization import link
from modeling.segments_fast_diarization import Segment, exclusive_segments
from modeling.separate_fast_diarization import link_channels
from modeling.settings_fast_diarization import SpeakerCount
from modeling.words_fast_diarization import Word, spoken_turns

KINDS = {AudioWarning: "warning", AudioNotice: "note"}
SHIPPED = Path(__file__).parent / "pretrained" / "lightweight-cnn"
DEFAULT_MODEL = MODEL if MODEL and not SHIPPED.is_dir() else os.path.relpath(SHIPPED)


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
            report(f"{f'{error.name} is not installed' if error.name else error}; {OF_RECORDINGS}")
        except OutputLost as error:
            report(error)
            return 1
        except (ValueError, OSError) as error:
            report(error)
    return 2


def run(arguments: argparse.Namespace) -> int:
    count = SpeakerCount(arguments.num_speakers, arguments.min_speakers, arguments.max_speakers)
    check_choice(arguments.track, arguments.channels)
    if arguments.rename:
        return rename_files([*arguments.rename, *arguments.files])
    if arguments.enroll:
        heard = {"track": arguments.track, "channels": arguments.channels}
        return enrol_people(arguments.enroll, Path(arguments.voices), arguments.model, **heard)
    output = Path(arguments.output)
    if arguments.dataset:
        from diarization.hub_dataset import diarize_dataset

        make_directory(output, "--output")
        opened = open_network(arguments.model, arguments.provider, arguments.revision)
        model = f"{arguments.model}@{arguments.revision}" if arguments.revision else arguments.model
        return diarize_dataset(arguments.dataset, arguments.config, arguments.split, opened, model, output, count)
    return diarize_files(arguments, count, output)


def diarize_files(arguments: argparse.Namespace, count: SpeakerCount, output: Path) -> int:
    """Diarize recordings one after the other, each with its results, and score those that have a reference."""
    recordings = find_recordings(arguments.files)
    references = find_references(arguments, list(recordings))
    transcripts = read_words(arguments.words, recordings)
    network, settings = open_network(arguments.model, arguments.provider, arguments.revision)
    known = KnownVoices.load(arguments.voices, network) if arguments.voices else None
    make_directory(output, "--output")
    outputs = Outputs(output, arguments.format, arguments.plot, arguments.overwrite, inputs(arguments, recordings))
    outputs.check(recordings)
    rank, world_size = join()
    found: dict[str, tuple[list[Segment], float]] = {}
    for number, (name, file) in list(enumerate(recordings.items(), 1))[rank::world_size]:
        samples: list[int] = []
        try:
            heard = {"track": arguments.track, "channels": arguments.channels}
            blocks = with_progress(file, f"{number}/{len(recordings)} {name}", rank, samples, **heard)
            if arguments.channels == SEPARATE:
                diarization = link_channels(network, blocks, settings, name=file)
            else:
                diarization = link(network, blocks, settings).diarization(count)
            segments = (name_speakers(diarization, known, settings) if known else diarization).segments
            segments = exclusive_segments(segments) if arguments.exclusive else segments
            seconds = sum(samples) / SAMPLING_RATE
            words = with_speakers(*transcripts[name], segments, seconds) if name in transcripts else None
            turns = to_segments(references[name].turns) if name in references else ()
            about = asked(count) | count_facts(diarization.count)
            targets = outputs.write(name, segments, turns, about=about, words=words)
        except (ValueError, OSError) as error:
            report(error)
            continue
        found[name] = segments, seconds
        say(f"{file} -> {', '.join(map(str, targets))}\n{summary(segments, words)}")
        say_count(file, diarization.count, count)
    found = {name: one for share in gather(found, world_size) for name, one in share.items()}
    if references and found and rank == 0:
        print_scores(references, {name: found[name] for name in recordings if name in found})
    gather(None, world_size)  # a process that left with an error would end the one that prints
    return 0 if len(found) == len(recordings) else 1


def make_parser() -> argparse.ArgumentParser:
    parser = FlagParser(description=__doc__)
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="recordings in any container FFmpeg reads, video too, or directories of them; - is standard input, and "
        "names that begin with a hyphen follow a --",
    )
    parser.add_argument("--output", default="results", metavar="DIR", help="where results go (default: %(default)s)")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace existing files that diarize.py did not write or that were edited since (never an input)",
    )
    parser.add_argument(
        "--format",
        type=formats,
        metavar="NAMES",
        help=f"one or more of {','.join(FORMATS)} (default: rttm, with --words txt)",
    )
    parser.add_argument("--plot", action="store_true", help="a picture of each recording beside its hypothesis, PNG")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="directory, ONNX file or Hub id (default: %(default)s)")
    parser.add_argument("--revision", metavar="NAME", help="branch, tag or commit of a Hub id")
    parser.add_argument("--provider", choices=PROVIDERS, help="processor for the ONNX file (default: cpu)")
    parser.add_argument("--num_speakers", type=int, metavar="N", help="how many people speak in each, if known")
    parser.add_argument("--min_speakers", type=int, metavar="N", help="least number of speakers")
    parser.add_argument("--max_speakers", type=int, metavar="N", help="largest number of speakers")
    add_sources(parser)
    add_people(parser)
    return parser


def add_sources(parser: argparse.ArgumentParser) -> None:
    """Flags of what is heard, and of data sets."""
    parser.add_argument("--track", type=int, metavar="N", help="audio track to use (default: all but dubs, mixed)")
    parser.add_argument(
        "--channels",
        type=lambda value: int(value) if value.isdecimal() else value,
        default=MIX,
        metavar="WHICH",
        help=f"{MIX}, the number of a channel, or {SEPARATE}: one speaker on each (default: %(default)s)",
    )
    parser.add_argument(
        "--words",
        metavar="PATH",
        help="words of a speech recogniser, to be given to the speakers: JSON of whisper, faster-whisper, whisperX, "
        "whisper.cpp or transformers, SRT or WebVTT; of several recordings a directory of call.json, call.vtt or "
        "call.srt for call.wav",
    )
    parser.add_argument("--exclusive", action="store_true", help="no overlaps: the earlier speaker keeps the time")
    parser.add_argument("--reference", metavar="RTTM", help="RTTM file or directory of them, to score against")
    parser.add_argument("--uem", metavar="UEM", help="UEM file: the regions to score (default: whole recordings)")
    parser.add_argument(
        "--ignore_reference_name",
        action="store_true",
        help="score one recording against the one reference given, even if that names another recording",
    )
    parser.add_argument("--dataset", metavar="HUB_ID", help="data set with an audio column, instead of files")
    parser.add_argument("--config", metavar="NAME", help="configuration of the data set, such as ihm")
    parser.add_argument("--split", metavar="NAME", help="of the data set (default: test)")


def add_people(parser: argparse.ArgumentParser) -> None:
    """Flags of known voices and of names."""
    parser.add_argument(
        "--enroll",
        nargs="+",
        action="extend",
        metavar="NAME=FILE",
        help="add people to the file of known voices, each from recordings of that person alone (10 s of speech is "
        "good, 2 s is the minimum; FILEs that follow are the same person's); people already in it are kept",
    )
    parser.add_argument(
        "--voices",
        metavar="FILE",
        help="file of known voices: --enroll makes it, and speakers who are in it get their names; the others stay "
        "SPEAKER_00, ...",
    )
    parser.add_argument(
        "--rename",
        nargs="+",
        action="extend",
        metavar="OLD=NEW",
        help="other names for speakers in FILEs written before (RTTM, JSON, CSV, subtitles, text), in place",
    )


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = make_parser()
    flags, files = split_flags(sys.argv[1:] if arguments is None else arguments)
    arguments = parser.parse_intermixed_args(flags)
    arguments.files += files
    check_commands(parser, arguments)
    if not (arguments.enroll or arguments.rename) and bool(arguments.files) == bool(arguments.dataset):
        parser.error("give one or more recordings, or --dataset HUB_ID")
    if arguments.dataset and (arguments.format or arguments.plot or arguments.reference or arguments.overwrite):
        parser.error("--dataset writes Parquet; --format, --plot, --overwrite and --reference are for files")
    if arguments.dataset and (arguments.track or arguments.channels != MIX):
        parser.error("--track and --channels are for files")
    if arguments.dataset and (arguments.words or arguments.exclusive):
        parser.error("--words and --exclusive are for files")
    if arguments.words and arguments.format and not set(arguments.format) & set(WITH_WORDS):
        parser.error(f"--words needs one of {', '.join(WITH_WORDS)} in --format; the others hold no words")
    if arguments.channels == SEPARATE and (arguments.num_speakers or arguments.min_speakers or arguments.max_speakers):
        parser.error(f"with --channels {SEPARATE} there is one speaker on each channel; give no number of speakers")
    if (arguments.uem or arguments.ignore_reference_name) and not arguments.reference:
        parser.error("--uem and --ignore_reference_name are for scoring; add --reference")
    if (arguments.config or arguments.split) and not arguments.dataset:
        parser.error("--config and --split are for --dataset")
    arguments.split = arguments.split or "test"
    arguments.format = arguments.format or ["txt" if arguments.words else "rttm"]
    return arguments


def check_commands(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """End with a usage error where --enroll, --rename and --voices are given what does not belong to them."""
    if arguments.enroll and arguments.rename:
        parser.error("--enroll and --rename are two commands; run one after the other")
    if arguments.rename and arguments.voices:
        parser.error("--rename changes files written before; --voices is for recordings")
    if arguments.enroll and not arguments.voices:
        parser.error("--enroll needs the file to add to: --voices voices.safetensors")
    if arguments.enroll and (arguments.files or arguments.dataset):
        parser.error("--enroll makes the file of known voices only; diarize recordings with it in a second run")
    if arguments.enroll and arguments.channels == SEPARATE:
        parser.error(f"--enroll is from recordings of one person; --channels {SEPARATE} is for calls")
    if arguments.dataset and (arguments.voices or arguments.rename):
        parser.error("--voices and --rename are for files")


def formats(names: str) -> list[str]:
    """The value of --format."""
    for name in names.split(","):
        if name not in FORMATS:
            raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(FORMATS)}")
    return names.split(",")


def inputs(arguments: argparse.Namespace, recordings: dict[str, str]) -> dict[str, list]:
    """Every file that is read, by what it is, so that none is written to."""
    model = Path(arguments.model)
    found = {"recording": list(recordings.values()), "model": [model, *model.glob("*"), *model.glob("model/*")]}
    found |= {"file of words": list(find_words(arguments.words, recordings).values())}
    found |= {"file of known voices": [arguments.voices or ""]}
    if arguments.reference:
        from evaluation.references import reference_files

        found |= {"reference": reference_files(arguments.reference), "UEM file": [arguments.uem or ""]}
    return found


def show_warning(message, category, *location):
    say(" ".join([f"{KINDS.get(category, category.__name__)}:", *str(message).split()]), sys.stderr)


def summary(segments: list[Segment], words: list[Word] | None) -> str:
    """For the terminal: who speaks when, and of a short recording the turns or what was said in them."""
    if words is None:
        return text_timeline(segments)
    few = len(spoken_turns(words)) <= MOST_LISTED
    return text_timeline(segments, listed=False) + (f"\n{to_txt('', segments, words)}" if few else "")


def asked(count: SpeakerCount) -> dict[str, int]:
    """What was asked for, for JSON."""
    return {f"{name}_requested": value for name, value in vars(count).items() if value is not None}


def say_count(file: str, found: CountEstimate, count: SpeakerCount) -> None:
    """Say how many speakers there may be, or warn that they are not as many as asked for."""
    fewest = count.num_speakers or count.min_speakers or 0
    if not fewest <= found.found <= count.most:
        asked_for = f"--num_speakers {fewest}" if count.num_speakers else f"--min_speakers {fewest}"
        warn(f"{file}: {found.found} speakers found, {asked_for} asked for")
    elif not found.sure:
        say(f"  {count_sentence(found)}\n")


def find_references(arguments: argparse.Namespace, names: list[str]) -> dict:
    if not arguments.reference:
        return {}
    from evaluation.references import read_references

    return read_references(arguments.reference, names, arguments.uem, arguments.ignore_reference_name)


def print_scores(references: dict, found: dict[str, tuple[list[Segment], float]]) -> None:
    from evaluation.recording_scores import RecordingScores, recording_table

    scores = RecordingScores()
    for name, (segments, seconds) in found.items():
        truth = references[name]
        scores.add(truth.turns, to_annotation(name, segments), truth.regions, seconds)
    say(recording_table(scores.result()))


def to_segments(turns) -> list[Segment]:
    return [Segment(turn.start, turn.end, speaker, 1.0) for turn, _, speaker in turns.itertracks(yield_label=True)]


if __name__ == "__main__":
    sys.exit(main())
