"""Results as Markdown: one heading and a few tables for each source, every rate with its floor."""

from collections.abc import Mapping

from common.markdown import table
from evaluation.rates import beside_floor
from evaluation.recording_scores import recording_table
from evaluation.window_scores import several_speaker_groups, window_table

GROUPS = {
    "all_windows": "all windows",
    "more_speaker_windows": "more speakers",
    "overlapped_frames": "overlapped frames",
}


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
        rows.append([condition, groups[0]["all_windows"]["windows"], *cells])
    return table(header, rows)


def by_group(systems: Mapping[str, dict]) -> str:
    """3 s windows of recordings: rows are systems, columns groups of windows."""
    present = dict.fromkeys(group for s in systems.values() for group in s["groups"] if group != "silent_windows")
    rows = [[name, *(_cell(s["groups"], group) for group in present)] for name, s in systems.items()]
    return table(["DER in % (floor)", *map(group_words, present)], rows)


def _cell(groups: Mapping[str, dict], group: str) -> str:
    return beside_floor(groups[group], "diarization_error_rate") if group in groups else "-"


def _recordings(systems: Mapping[str, dict]) -> list[str]:
    lines = []
    for name, scores in systems.items():
        for count, result in scores["whole"].items():
            right = f"; right in {100 * result['count_right']:.0f} % of recordings" if count == "unknown" else ""
            given = f"number of speakers {count}" if not count.isdigit() else f"{count} speakers given"
            lines += [f"{name}, whole recordings, {given}{right}:", recording_table(result)]
    in_windows = {name: scores["windows"] for name, scores in systems.items() if scores["windows"]}
    if in_windows:
        lines += ["3 s windows of these recordings, each with its own best mapping:", by_group(in_windows)]
        lines.append(_by("by_origin", in_windows, "DER in % (floor), windows of"))
    return lines


def _voices(systems: Mapping[str, dict]) -> list[str]:
    rows = [
        [name, f"{100 * s['equal_error_rate']:.1f}", s["speakers"], s["pieces"], s["same_pairs"], s["other_pairs"]]
        for name, s in systems.items()
    ]
    return [table(["", "equal error rate (%)", "speakers", "pieces", "pairs of one speaker", "pairs of two"], rows)]
