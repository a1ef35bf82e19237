"""Score the speakers assigned to words, on recordings whose true speakers are known.

    python -m evaluation.words path/to/calls --model pretrained/lightweight-cnn pretrained/attention-gru

A directory holds audio files and for each NAME.words.json, a list of {"word", "start", "end", "speaker"} or, where the
times of words are not known, {"text", "start", "end", "speaker"}. Recordings are diarized as a mix of their channels,
their true words given to the speakers found: once with their times, and once as segments of a recogniser without times
of words, which end at pauses and not where speakers change.

WDER, word diarization error rate (Shafey et al., Interspeech 2019): words with a wrong speaker over all words, under
the best assignment of speakers. cpWER, concatenated minimum-permutation word error rate (Watanabe et al., CHiME-6,
2020): edits between the words of each true speaker and of one found, over all words, under the best permutation; as the
words are right, a wrong speaker costs one deletion and one insertion. In brackets the floor, the score of a one-speaker
oracle. Exit code: 1 if a recording could not be read, 2 for wrong usage.
"""

import json
import re
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from common.program import end_quietly
from evaluation.flags import of_words

if __name__ == "__main__":
    end_quietly()
    of_words(__doc__)  # --help and wrong usage, before imports that take seconds

import numpy as np
from scipy.optimize import linear_sum_assignment

from common.markdown import table
from common.terminal import OutputLost, report, say
from diarization.names import MEDIA_SUFFIXES
from evaluation.systems import open_systems
from modeling.audio_fast_diarization import load_audio
from modeling.linking_fast_diarization import link
from modeling.settings_fast_diarization import SpeakerCount
from modeling.transcripts_fast_diarization import Passage, Piece, read_transcript
from modeling.words_fast_diarization import Word, assign_words

SUFFIX = ".words.json"
NO_WORD = re.compile(r"\[.*\]")
"""Marks of what is no word, as `[noise]`."""
LONGEST_SEGMENT, SEGMENT_PAUSE = 10.0, 1.0
"""Seconds of the segments without times of words, and the pause at which one ends."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; an error is one line on standard error."""
    warnings.simplefilter("ignore")
    chosen = of_words(__doc__, arguments)
    try:
        return run(Path(chosen.directory), chosen.model)
    except OutputLost as error:
        report(error)
        return 1
    except (ValueError, OSError) as error:
        report(error)
        return 2


def run(directory: Path, models: Sequence[str]) -> int:
    files = sorted(directory.rglob(f"*{SUFFIX}"))
    if not files:
        raise ValueError(f"{directory} has no *{SUFFIX}; put the true words of recordings beside them")
    systems, failed = open_systems(models), False
    totals: dict[tuple[str, str, str], Counter] = defaultdict(Counter)
    for file in files:
        try:
            words, waveform = read_words(file), load_audio(audio_of(file))
        except (ValueError, OSError) as error:
            report(error)
            failed = True
            continue
        for system in systems:
            linker = link(system.network, [waveform], system.settings)
            for known, count in (("unknown", None), ("known", len({word.speaker for word in words}))):
                segments = linker.segments(SpeakerCount(count))
                for kind, transcript in (("words", by_word(words)), ("segments", by_segment(words))):
                    found = [word.speaker for word in assign_words(transcript, segments)]
                    totals[system.name, known, kind] += count_errors(words, found)
    if totals:
        say(word_table(totals))
    return int(failed)


def read_words(file: Path) -> list[Word]:
    """The true words of a recording by start; marks such as `[noise]` are left out.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no list of objects with text, times and a speaker.
    """
    items = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(items, list) or not all(isinstance(i, dict) and isinstance(i.get("speaker"), str) for i in items):
        raise ValueError(f"{file}: expected a list of objects with word, start, end and speaker")
    words = []
    for speaker in dict.fromkeys(item["speaker"] for item in items):
        theirs = assign_words(read_transcript([item for item in items if item["speaker"] == speaker]), [])
        words += [replace(word, speaker=speaker) for word in theirs if not NO_WORD.fullmatch(word.text)]
    if not words:
        raise ValueError(f"{file}: no words")
    return sorted(words, key=lambda word: word.start)


def audio_of(file: Path) -> Path:
    name = file.name.removesuffix(SUFFIX)
    found = [f for f in sorted(file.parent.iterdir()) if f.stem == name and f.suffix.lower() in MEDIA_SUFFIXES]
    if not found:
        raise ValueError(f"{file}: no recording {name} beside it")
    return found[0]


def by_word(words: Sequence[Word]) -> list[Passage]:
    """As of a recogniser that gives the times of words."""
    return [Passage(word.start, word.end, (Piece(word.text, word.start, word.end),)) for word in words]


def by_segment(words: Sequence[Word]) -> list[Passage]:
    """As of a recogniser that gives the times of segments only, whoever speaks in them."""
    groups: list[list[Word]] = []
    for word in words:
        if (
            not groups
            or word.start - max(w.end for w in groups[-1]) > SEGMENT_PAUSE
            or word.end - groups[-1][0].start > LONGEST_SEGMENT
        ):
            groups.append([])
        groups[-1].append(word)
    return [Passage(g[0].start, max(w.end for w in g), tuple(Piece(w.text) for w in g)) for g in groups]


def count_errors(words: Sequence[Word], speakers: Sequence[str | None]) -> Counter:
    """
    Args:
        words: with their true speakers.
        speakers: of the hypothesis, word by word.

    Returns:
        `words`, `wrong_words` (of WDER) and `wrong_edits` (of cpWER), both with `floor_` too.
    """
    truth, texts = [word.speaker for word in words], [word.text for word in words]
    counts = Counter(words=len(words))
    for prefix, found in (("", speakers), ("floor_", [None] * len(words))):
        counts[f"{prefix}wrong_words"] = len(words) - most_agreeing(truth, found)
        counts[f"{prefix}wrong_edits"] = fewest_edits(_by_speaker(truth, texts), _by_speaker(found, texts))
    return counts


def most_agreeing(truth: Sequence, found: Sequence) -> int:
    """Words with the same speaker under the best assignment of speakers, one to one."""
    rows, columns = list(dict.fromkeys(truth)), list(dict.fromkeys(found))
    shared = np.zeros((len(rows), len(columns)), int)
    for pair, number in Counter(zip(truth, found)).items():
        shared[rows.index(pair[0]), columns.index(pair[1])] = number
    return int(shared[linear_sum_assignment(shared, maximize=True)].sum())


def fewest_edits(truth: Sequence[Sequence[str]], found: Sequence[Sequence[str]]) -> int:
    """Edits from the words of each true speaker to those of one found, or of none, under the best permutation."""
    speakers = max(len(truth), len(found))
    truth, found = ([*many, *[[]] * (speakers - len(many))] for many in (truth, found))
    edits = np.array([[edit_distance(theirs, said) for said in found] for theirs in truth]).reshape(speakers, speakers)
    return int(edits[linear_sum_assignment(edits)].sum())


def edit_distance(one: Sequence, other: Sequence) -> int:
    """Levenshtein distance: the fewest words to substitute, leave out and put in."""
    numbers: dict = {}
    one, other = (np.array([numbers.setdefault(w, len(numbers)) for w in words], int) for words in (one, other))
    steps = np.arange(len(other) + 1)
    row = steps
    for word in one:
        row = np.r_[row[0] + 1, np.minimum(row[1:] + 1, row[:-1] + (other != word))]
        row = np.minimum.accumulate(row - steps) + steps
    return int(row[-1])


def word_table(totals: Mapping[tuple[str, str, str], Mapping[str, int]]) -> str:
    """Markdown, in percent, with floors in brackets."""
    rows = []
    for (system, known, kind), counts in totals.items():
        rates = {name: f"{100 * number / counts['words']:.1f}" for name, number in counts.items()}
        cells = [f"{rates[name]} ({rates[f'floor_{name}']})" for name in ("wrong_words", "wrong_edits")]
        rows.append([f"{system}, number {known}, times of {kind}", counts["words"], *cells])
    return table(["% (floor)", "words", "WDER", "cpWER"], rows)


def _by_speaker(speakers: Sequence, texts: Sequence[str]) -> list[list[str]]:
    said = defaultdict(list)
    for speaker, text in zip(speakers, texts):
        said[speaker].append(text)
    return list(said.values())


if __name__ == "__main__":
    sys.exit(main())
