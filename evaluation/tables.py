"""Results as Markdown: one heading and a few tables for each source, every rate with its floor."""

from collections.abc import Mapping, Sequence

from common.markdown import table
from evaluation.rates import beside_floor
from evaluation.recording_scores import count_shares, recording_table
from evaluation.shifts import spread
from evaluation.sounds import sound_tables
from evaluation.window_scores import several_speaker_groups, window_table

GROUPS = {
    "all_windows": "all windows",
    "more_speaker_windows": "more speakers",
    "overlapped_frames": "overlapped frames",
}

CONDITIONS = {"sounds that are nobody": "non-speech sounds"}
"""What conditions of frozen sets are called in tables, where not by their names."""


def group_words(group: str) -> str:
    """`two speakers` of `two_speaker_windows`."""
    number = group.removesuffix("_speaker_windows")
    return GROUPS.get(group) or f"{number} speaker{'s' * (number != 'one')}"


def result_tables(result: dict) -> str:
    """The tables of one result of `evaluation.results.evaluate`."""
    lines = [f"### {result['title']}", result["settings"]]
    if result["kind"] == "windows":
        lines += _windows(result["parts"])
    elif result["kind"] == "recordings":
        for part, systems in result["parts"].items():
            lines += [f"**{part}**", *_recordings(systems)]
    elif result["kind"] == "sounds":
        lines += sound_tables(result["parts"])
    else:
        lines += _voices(result["parts"])
    if result.get("failed"):
        lines.append(f"Could not be read: {', '.join(result['failed'])}.")
    return "\n\n".join(lines)


def _windows(conditions: Mapping[str, dict[str, dict]]) -> list[str]:
    first, systems = next(iter(conditions.items()))
    lines = []
    for name, scores in systems.items():
        lines += [f"{name}, {first}:", window_table(scores["groups"])]
    lines.append(by_overlap(systems))
    if len(conditions) > 1:
        lines.append(by_condition(conditions))
    return lines


def by_overlap(systems: Mapping[str, dict]) -> str:
    """Rows are shares of overlapped speech, columns systems."""
    return _by("by_overlap", systems, "DER in % (floor), windows with")


def _by(division: str, systems: Mapping[str, dict], corner: str) -> str:
    rows = []
    for part, scores in next(iter(systems.values()))[division].items():
        cells = [beside_floor(s[division][part], "diarization_error_rate") for s in systems.values()]
        rows += [[part, scores["windows"], *cells]] if scores["speech"] else []
    return table([corner, "windows", *systems], rows)


def by_condition(conditions: Mapping[str, dict[str, dict]]) -> str:
    """Rows are acoustic conditions; columns are systems, for all windows and for two-speaker windows."""
    names = list(next(iter(conditions.values())))
    scored = [group for systems in conditions.values() for name in names for group in systems[name]["groups"]]
    shown = ["all_windows", *several_speaker_groups(dict.fromkeys(scored))]
    header = ["DER in % (floor)", "windows"]
    header += [f"{name}, {group_words(group)}" for name in names for group in shown]
    rows = []
    for condition, systems in conditions.items():
        groups = [systems[name]["groups"] for name in names]
        cells = [_cell(g, group) for g in groups for group in shown]
        rows.append([CONDITIONS.get(condition, condition), groups[0]["all_windows"]["windows"], *cells])
    return table(header, rows)


def by_group(systems: Mapping[str, dict]) -> str:
    """3 s windows of recordings: rows are systems, columns groups of windows."""
    present = dict.fromkeys(group for s in systems.values() for group in s["groups"] if group != "silent_windows")
    rows = [[name, *(_cell(s["groups"], group) for group in present)] for name, s in systems.items()]
    return table(["DER in % (floor)", *map(group_words, present)], rows)


def _cell(groups: Mapping[str, dict], group: str) -> str:
    if not groups.get(group, {}).get("speech"):
        return "-"
    return beside_floor(groups[group], "diarization_error_rate")


def _recordings(systems: Mapping[str, dict]) -> list[str]:
    lines = []
    for name, scores in systems.items():
        for count, result in scores["whole"].items():
            given = f"number of speakers {count}" if not count.isdigit() else f"{count} speakers given"
            right = f"; {_counted(result)}" if count == "unknown" else ""
            lines += [f"{name}, whole recordings, {given}{right}:", recording_table(result)]
            lines += [shift_table(result["shifts"])] if "shifts" in result else []
    in_windows = {name: scores["windows"] for name, scores in systems.items() if scores["windows"]}
    if in_windows:
        lines += ["3 s windows of these recordings, each with its own best mapping:", by_group(in_windows)]
        lines.append(_by("by_origin", in_windows, "DER in % (floor), windows of"))
    return lines


def _counted(result: dict) -> str:
    shares = count_shares(result["recordings"])
    exact, within_one = (f"{100 * shares[name]:.0f} %" for name in ("count_exact", "count_within_one"))
    return f"right in {exact} of recordings, within one in {within_one}"


def shift_table(shifts: dict) -> str:
    """Of what `over_shifts` gives: mean and range of the diarization error rate and of the number of speakers."""
    rows = [
        [name, _error_range(found), _range(found["hypothesis_speakers"])]
        for name, found in shifts["recordings"].items()
    ]
    counts = (_range(shifts["total"][name], " %", 100) for name in ("count_exact", "count_within_one"))
    rows.append(["total", _error_range(shifts["total"]), "exact in {}, within one in {}".format(*counts)])
    caption = (
        f"Over {len(shifts['seconds'])} shifts by up to {max(shifts['seconds']):.3g} s of silence before the start:"
    )
    return f"{caption}\n\n{table(['mean (lowest to highest)', 'DER (%)', 'speakers'], rows)}"


def _error_range(found: Mapping[str, Sequence[float]]) -> str:
    if alarm := found.get("false_alarm_seconds"):
        return _range(alarm, " s of false alarm")
    return _range(found["diarization_error_rate"], scale=100)


def _range(values: Sequence[float], unit: str = "", scale: float = 1) -> str:
    mean, low, high = (f"{scale * value:.1f}" for value in spread(values))
    return f"{mean} ({low} to {high}){unit}"


def _voices(systems: Mapping[str, dict]) -> list[str]:
    rows = [
        [name, f"{100 * s['equal_error_rate']:.1f}", s["speakers"], s["pieces"], s["same_pairs"], s["other_pairs"]]
        for name, s in systems.items()
    ]
    return [table(["", "equal error rate (%)", "speakers", "pieces", "pairs of one speaker", "pairs of two"], rows)]
