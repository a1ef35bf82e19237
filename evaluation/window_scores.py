"""Scores of many windows, grouped by their number of speakers, beside the scores of a one-speaker oracle (the floor).

A window of a real conversation mostly holds one speaker, so the score of all windows mostly reflects speech detection;
two-speaker windows and overlapped frames show whether speakers are told apart.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable

from numpy.typing import ArrayLike

from common.markdown import table
from common.words import number_word
from evaluation.diarization_error_rate import count_errors, error_rates, floor
from evaluation.rates import HEADINGS, beside_floor
from modeling.task_fast_diarization import Task

OF_SILENCE = ("frame_accuracy",)
"""Rates that need no reference speech to divide by."""
COUNTS = ("frames", "speech", "missed_speech", "false_alarm", "confusion", "correct_frames")


def speaker_group(speakers: int) -> str:
    """The name of the group of windows with this number of speakers."""
    return f"{number_word(speakers)}_speaker_windows" if speakers else "silent_windows"


def several_speaker_groups(groups: Iterable[str]) -> list[str]:
    """The groups of two speakers, three and so on, up to the number of the task."""
    others = {speaker_group(1), "more_speaker_windows"}
    return [group for group in groups if group.endswith("_speaker_windows") and group not in others]


class WindowScores:
    """Accumulates the errors of batches, so that a set of any size can be scored.

    Args:
        num_speakers: of the task; windows are grouped by each number up to it, and all with more in one group.

    Example:
        scores = WindowScores()
        for predictions, references in batches:
            scores.add(predictions, references)
        print(window_table(scores.result()))
    """

    def __init__(self, num_speakers: int = Task.num_speakers) -> None:
        self.num_speakers = num_speakers
        self._totals: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: {"": Counter(), "floor_": Counter()})

    def add(self, predictions: ArrayLike, references: ArrayLike, mask: ArrayLike | None = None) -> None:
        """Adds a batch: 0/1 of shape (windows, frames, speakers) and, where given, a (windows, frames) mask.

        Raises:
            ValueError: shapes disagree, or a value is neither 0 nor 1.
        """
        for prefix, hypotheses in (("", predictions), ("floor_", floor(references))):
            for group, counts in self._count_groups(hypotheses, references, mask).items():
                self._totals[group][prefix].update(counts)

    def result(self) -> dict[str, dict[str, float]]:
        """Scores of each group, by the number of speakers in the reference of the window.

        Each holds `windows`, `frames`, `speech` (speaker frames), the rates of `error_rates` and the same with
        the prefix `floor_`. Overlapped frames keep the permutation of their whole window, and their `windows`
        are those with overlap. Groups that do not occur are left out.

        Raises:
            ValueError: no window was added.
        """
        occurring = {group: totals for group, totals in self._totals.items() if totals[""]["frames"]}
        if not occurring:
            raise ValueError("there is no window to score: add a batch of one or more windows first")
        return {
            group: {name: totals[""][name] for name in ("windows", "frames", "speech")}
            | {prefix + name: rate for prefix in totals for name, rate in error_rates(totals[prefix]).items()}
            for group, totals in occurring.items()
        }

    def _count_groups(
        self, predictions: ArrayLike, references: ArrayLike, mask: ArrayLike | None
    ) -> dict[str, dict[str, int]]:
        counts = count_errors(predictions, references, mask)
        speakers = counts["speakers"]
        chosen = {"all_windows": speakers >= 0}
        chosen |= {speaker_group(number): speakers == number for number in range(self.num_speakers + 1)}
        chosen |= {
            "more_speaker_windows": speakers > self.num_speakers,
            "overlapped_frames": counts["overlap_frames"] > 0,
        }
        return {
            group: {"windows": int(windows.sum())}
            | {name: int(counts["overlap_" * (group == "overlapped_frames") + name][windows].sum()) for name in COUNTS}
            for group, windows in chosen.items()
        }


def tabulate(predictions: ArrayLike, references: ArrayLike) -> dict[str, dict[str, float]]:
    """`WindowScores.result` of one batch: 0/1 of shape (windows, frames, speakers)."""
    scores = WindowScores()
    scores.add(predictions, references)
    return scores.result()


def window_table(result: dict[str, dict[str, float]]) -> str:
    """A table of `WindowScores.result` in percent, with floors in brackets.

    Silent windows have no reference speech to divide by, so they only have the rates `OF_SILENCE`.
    """
    rates = [name for name in HEADINGS if all(name in scores for scores in result.values())]
    header = ["% (floor)", "windows", "frames", *(HEADINGS[name] for name in rates)]
    rows = []
    for group, scores in result.items():
        cells = [beside_floor(scores, name) if scores["speech"] or name in OF_SILENCE else "-" for name in rates]
        name = group.replace("_speaker_", "-speaker ").replace("_", " ")
        rows.append([name, scores["windows"], scores["frames"], *cells])
    return table(header, rows)
