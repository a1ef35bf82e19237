"""The figures that stand for a result: what a summary table shows and a model card's index holds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from common.markdown import table
from evaluation.window_scores import several_speaker_groups


@dataclass(frozen=True)
class Headline:
    """One rate in percent and its floor, where there is one.

    Args:
        on: what it was measured on.
        metric: `"DER"`, `"exact frame accuracy"`, `"number of speakers right"` or `"equal error rate"`.
    """

    on: str
    metric: str
    percent: float
    floor: float | None = None

    def __str__(self) -> str:
        return f"{self.percent:.1f}" + (f" ({self.floor:.1f})" if self.floor is not None else "")


def headlines(results: Sequence[dict], system: str) -> list[Headline]:
    """The figures of one system among results of `evaluation.results.evaluate`, but for those not `in_summary`."""
    found = []
    for result in results:
        if not result.get("in_summary", True):
            continue
        of_kind = {"windows": _of_windows, "recordings": _of_recordings, "voices": _of_voices}[result["kind"]]
        found += of_kind(result, system)
    return found


def summary(results: Sequence[dict], systems: Sequence[str]) -> str:
    """A table of figures: rows are what was measured, columns systems."""
    columns = {system: {(f.on, f.metric): f for f in headlines(results, system)} for system in systems}
    rows = list(dict.fromkeys(key for column in columns.values() for key in column))
    cells = [[f"{metric}, {on}", *(str(columns[s].get((on, metric), "-")) for s in systems)] for on, metric in rows]
    return table(["% (floor)", *systems], cells)


def _rate(on: str, scores: dict, name: str, metric: str) -> Headline:
    return Headline(on, metric, 100 * scores[name], 100 * scores[f"floor_{name}"])


def _of_windows(result: dict, system: str) -> Iterator[Headline]:
    condition, systems = next(iter(result["parts"].items()))
    if system not in systems:
        return
    groups = systems[system]["groups"]
    for group in ("all_windows", *several_speaker_groups(groups), "overlapped_frames"):
        if group in groups:
            words = group.replace("_", " ").replace(" speaker", "-speaker")
            on = f"{result['title']}, {condition}: {words}"
            yield _rate(on, groups[group], "diarization_error_rate", "DER")
            if group == "all_windows":
                yield _rate(on, groups[group], "frame_accuracy", "exact frame accuracy")


def _of_recordings(result: dict, system: str) -> Iterator[Headline]:
    for part, systems in result["parts"].items():
        scores = systems.get(system)
        if not scores:
            continue
        on = f"{result['title']}: {part}"
        for count, whole in scores["whole"].items():
            told = f"number of speakers {count}" if not count.isdigit() else f"{count} speakers told"
            for name, one in whole["recordings"].items() if result["each"] else ():
                yield _rate(f"{result['title']}: {name}, {told}", one, "diarization_error_rate", "DER")
            yield _rate(f"{on}, {told}", whole["total"], "diarization_error_rate", "DER")
            if count == "unknown":
                yield Headline(on, "number of speakers right", 100 * whole["count_right"])
        for name, one in scores["windows"]["by_origin"].items() if scores["windows"] and result["each"] else ():
            yield _rate(f"{result['title']}: {name}, 3 s windows", one, "diarization_error_rate", "DER")
        if scores["windows"]:
            all_windows = scores["windows"]["groups"]["all_windows"]
            yield _rate(f"{on}, 3 s windows", all_windows, "diarization_error_rate", "DER")


def _of_voices(result: dict, system: str) -> Iterator[Headline]:
    if system in result["parts"]:
        yield Headline(result["title"], "equal error rate", 100 * result["parts"][system]["equal_error_rate"])
