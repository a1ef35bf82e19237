"""The tables of docs/RESULTS.md, README and the model cards, from results of `evaluation.results.evaluate`.

Every error rate stands beside that of the one-speaker oracle, the *floor*. Details that no table here shows stay in
docs/results.json and in the `evaluation.json` of each model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from common.markdown import table
from evaluation.rates import beside_floor
from evaluation.sounds import sound_tables
from evaluation.tables import CONDITIONS, group_words
from evaluation.window_scores import several_speaker_groups

DER, ACCURACY = "diarization_error_rate", "frame_accuracy"
RECORDINGS = {
    "lca_auto_repairs_40": "service call, telephone, 4 min",
    "pyannote_sample": "pyannote's sample, quick talk, 30 s",
    "ami_dev00": "AMI meeting, far-field, 30 s",
}
"""What some recordings are; others go by their names."""
MOST_RECORDINGS = 4
"""Of a set of more real recordings the key rates show the two with the highest error rates and the total."""
MOST_KEY_RATES = 6
"""In the table of a card."""
CHAIN_CHANGED = "2026-11-27"
BEFORE_CHANGE = f"scored before the acoustic chain of recordings was changed on {CHAIN_CHANGED}; to be scored anew"


@dataclass(frozen=True)
class KeyRate:
    """A diarization error rate that stands for a result, as a fraction.

    Args:
        on: what was scored.
        rate, floor: with the number of speakers unknown, the mean over shifts of the windows if there are several; of
            the one-speaker oracle.
        known: with the number of speakers given; of whole recordings only.
        count_right: share of recordings in which the number of speakers was found; of sets of recordings only.
        span: lowest and highest rate over the shifts.
    """

    on: str
    rate: float
    floor: float
    known: float | None = None
    count_right: float | None = None
    span: tuple[float, float] | None = None

    def __str__(self) -> str:
        """The rate in percent, with its range if there is one."""
        low, high = self.span or (self.rate, self.rate)
        return _percent(self.rate) + (f" [{_percent(low)} to {_percent(high)}]" if high > low else "")


def systems_of(results: Sequence[dict]) -> list[str]:
    """Names of the systems, in the order of the results, without the ONNX files beside a model."""
    named = [
        system
        for result in results
        for scores in ([result["parts"]] if result["kind"] == "voices" else result["parts"].values())
        for system in scores
    ]
    return list(dict.fromkeys(name for name in named if "/" not in name))


def real(results: Sequence[dict]) -> list[dict]:
    """Results of real recordings."""
    return [result for result in results if result["kind"] == "recordings" and result["each"]]


def simulated(results: Sequence[dict]) -> list[dict]:
    """Results of simulated recordings."""
    return [result for result in results if result["kind"] == "recordings" and not result["each"]]


def windows(results: Sequence[dict]) -> list[dict]:
    """Results of simulated windows, but for those that compare the formats of a model."""
    return [result for result in results if result["kind"] == "windows" and result.get("in_summary", True)]


def scored_before_change(results: Sequence[dict]) -> bool:
    """Whether a result of simulated recordings was scored before their acoustic effects were put in order."""
    return any(result.get("scored", "") < CHAIN_CHANGED for result in simulated(results))


def key_rates(results: Sequence[dict], system: str) -> list[KeyRate]:
    """A handful of rates of a system: real recordings first, then simulated ones, then windows."""
    found = []
    for result in real(results):
        for scores in result["parts"].values():
            mine = scores.get(system, {})
            found += _of_real_recordings(mine.get("whole", {}))
            if mine.get("windows"):
                found.append(_of_group(mine["windows"]["groups"]["all_windows"], "3 s windows of real recordings"))
    for result in simulated(results):
        for part, scores in result["parts"].items():
            whole = scores.get(system, {}).get("whole", {})
            if "unknown" in whole:
                found.append(of_whole(f"simulated recordings: {part}", whole, "total"))
    for result in windows(results):
        condition, scores = next(iter(result["parts"].items()))
        found += of_windows(scores[system]["groups"], f"simulated 3 s windows, {condition}") if system in scores else []
    return found


def of_windows(groups: Mapping[str, dict], on: str) -> list[KeyRate]:
    """The rates of all windows and of those with several speakers."""
    named = {"all_windows": on} | {group: f"{on}, {group_words(group)}" for group in several_speaker_groups(groups)}
    return [_of_group(groups[group], words) for group, words in named.items() if group in groups]


def _of_group(scores: Mapping[str, float], on: str) -> KeyRate:
    return KeyRate(on, scores[DER], scores[f"floor_{DER}"])


def _of_real_recordings(whole: dict) -> list[KeyRate]:
    if "unknown" not in whole:
        return []
    scores = {name: one for name, one in whole["unknown"]["recordings"].items() if one["speech"]}
    shown = list(scores)
    if len(shown) > MOST_RECORDINGS:
        shown = sorted(shown, key=lambda name: -scores[name][DER])[:2]
    each = [of_whole(RECORDINGS.get(name, name), whole, name) for name in shown]
    every = of_whole(f"all {len(scores)} real recordings", whole, "total")
    return [*each, every] if len(scores) > len(shown) else each


def of_whole(on: str, whole: dict, name: str) -> KeyRate:
    """The rate of one recording, or of all (`total`), on whole recordings."""

    def of(count: str) -> dict:
        return whole[count]["total"] if name == "total" else whole[count]["recordings"][name]

    known = of("known")[DER] if "known" in whole else None
    shifts = whole["unknown"].get("shifts", {"total": {}, "recordings": {}})
    shifted = (shifts["total"] if name == "total" else shifts["recordings"].get(name, {})).get(DER)
    rates = shifted or [of("unknown")[DER]]
    right = whole["unknown"]["count_right"] if name == "total" else None
    return KeyRate(on, fmean(rates), of("unknown")[f"floor_{DER}"], known, right, (min(rates), max(rates)))


def key_table(rates: Sequence[KeyRate]) -> str:
    """A handful of key rates of one system, the highest two and the first of the others, highest error rate first."""
    by_rate = sorted(rates, key=lambda key: -key.rate)
    shown = [*by_rate[:2], *(key for key in rates if key not in by_rate[:2])][:MOST_KEY_RATES]
    rows = [[key.on, key, *map(_percent, (key.floor, key.known, key.count_right))] for key in by_rate if key in shown]
    return table(["%", "DER", "floor", "DER, number of speakers given", "number of speakers right"], rows)


def overview(results: Sequence[dict]) -> str:
    """Key rates of all systems side by side; number of speakers unknown."""
    systems = systems_of(results)
    columns = {system: {key.on: key for key in key_rates(results, system)} for system in systems}
    rows = []
    for on in dict.fromkeys(on for column in columns.values() for on in column):
        floor = next(column[on].floor for column in columns.values() if on in column)
        rows.append([on, _percent(floor), *(columns[system].get(on, "-") for system in systems)])
    return table(["DER in %", "floor", *systems], rows)


def recordings_table(results: Sequence[dict]) -> str:
    """Real recordings one by one: columns are systems, with the number of speakers unknown and given."""
    models = [system for system in systems_of(results) if _has_whole(results, system)]
    header = ["DER in %", "speakers", "floor"]
    header += [f"{model}{words}" for model in models for words in ("", ", number given")]
    rows = []
    for result in results:
        for scores in result["parts"].values():
            first = scores[models[0]]["whole"]["unknown"]["recordings"]
            for name, one in first.items():
                if not one["speech"]:
                    continue
                cells = [_of_model(scores[model]["whole"], name) for model in models]
                words = RECORDINGS.get(name, name)
                floor = _percent(one[f"floor_{DER}"])
                rows.append([words, one["reference_speakers"], floor, *(cell for pair in cells for cell in pair)])
    return table(header, rows)


def _of_model(whole: dict, name: str) -> tuple[str, str]:
    key = of_whole(name, whole, name)
    found = whole["unknown"]["recordings"][name]["hypothesis_speakers"]
    return f"{key}, {found} found", _percent(key.known)


def _has_whole(results: Sequence[dict], system: str) -> bool:
    return any(scores.get(system, {}).get("whole") for result in results for scores in result["parts"].values())


def simulated_table(results: Sequence[dict]) -> str:
    """Simulated recordings: rows are sets of them, columns systems with the number of speakers unknown and given."""
    models = [system for system in systems_of(results) if _has_whole(results, system)]
    header = ["DER in %", "floor"]
    header += [f"{model}{words}" for model in models for words in ("", ", number right", ", number given")]
    rows = []
    for result in results:
        for part, scores in result["parts"].items():
            keys = [of_whole(part, scores[model]["whole"], "total") for model in models]
            cells = (cell for key in keys for cell in (key, _percent(key.count_right), _percent(key.known)))
            rows.append([part, _percent(keys[0].floor), *cells])
    return table(header, rows)


def parts_table(results: Sequence[dict]) -> str:
    """What the errors of whole recordings are, all recordings of a set together: rows are systems."""
    names = (DER, "missed_speech", "false_alarm", "confusion", "jaccard_error_rate")
    rows = []
    for result in results:
        for scores in result["parts"].values():
            for system in (name for name in systems_of([result]) if scores.get(name, {}).get("whole")):
                for count, whole in scores[system]["whole"].items():
                    right = _percent(whole["count_right"]) if count == "unknown" else ""
                    rows.append([system, count, *(beside_floor(whole["total"], name) for name in names), right])
    header = ["% (floor)", "number", "DER", "missed", "false alarm", "confusion", "JER", "number right"]
    return table(header, rows)


def windows_table(results: Sequence[dict]) -> str:
    """3 s windows: rows are groups of simulated windows and the windows of recordings, columns systems."""
    systems = systems_of(results)
    rows = []
    for result in windows(results):
        _, scores = next(iter(result["parts"].items()))
        by_system = {system: scores[system]["groups"] for system in systems if system in scores}
        for group in next(iter(by_system.values())):
            if group != "silent_windows":
                scored = {s: g[group] for s, g in by_system.items() if group in g}
                rows += _row(f"simulated, {group_words(group)}", scored, systems, DER)
        every = {s: g["all_windows"] for s, g in by_system.items()}
        rows += _row("exact frame accuracy in % (higher is better)", every, systems, ACCURACY)
    for result in real(results):
        for scores in result["parts"].values():
            by_system = {s: scores[s]["windows"] for s in systems if scores.get(s, {}).get("windows")}
            rows += _row("real, all", {s: w["groups"]["all_windows"] for s, w in by_system.items()}, systems, DER)
            for name in next(iter(by_system.values()), {"by_origin": {}})["by_origin"]:
                words = f"real: {RECORDINGS.get(name, name)}"
                rows += _row(words, {s: w["by_origin"][name] for s, w in by_system.items()}, systems, DER)
    return table(["DER in %", "floor", *systems], rows)


def _row(words: str, scores: Mapping[str, dict], systems: Sequence[str], rate: str) -> list[list[str]]:
    if not scores:
        return []
    floor = next(iter(scores.values()))[f"floor_{rate}"]
    return [[words, _percent(floor), *(_percent(scores[s][rate]) if s in scores else "-" for s in systems)]]


def conditions_table(results: Sequence[dict]) -> str:
    """Acoustic conditions of simulated windows: rows are conditions, columns systems."""
    systems = systems_of(results)
    scored = (s["groups"] for result in windows(results) for part in result["parts"].values() for s in part.values())
    groups = ["all_windows", *several_speaker_groups(dict.fromkeys(group for groups in scored for group in groups))]
    missing, rows = ["-"] * (1 + len(systems)), []
    for result in windows(results):
        for condition, scores in result["parts"].items():
            by_system = {s: scores[s]["groups"] for s in systems if s in scores}
            cells = [
                _row("", {s: g[group] for s, g in by_system.items() if group in g}, systems, DER) for group in groups
            ]
            shown = [cell for row in cells for cell in (row[0][1:] if row else missing)]
            rows.append([CONDITIONS.get(condition, condition), *shown])
    header = [f"{group_words(group)}, {what}" for group in groups for what in ("floor", *systems)]
    return table(["DER in %", *header], rows)


def formats_table(results: Sequence[dict]) -> str:
    """The same windows through torch, ONNX Runtime and int8: rows are files."""
    files = {
        system if "/" in system else f"{system}/model.safetensors": found["groups"]
        for result in results
        if result["kind"] == "windows" and not result.get("in_summary", True)
        for scores in result["parts"].values()
        for system, found in sorted(scores.items())
    }
    shown = ["all_windows", *several_speaker_groups(dict.fromkeys(group for g in files.values() for group in g))]
    rows = [[f"`{file}`", *(beside_floor(groups[group], DER) for group in shown)] for file, groups in files.items()]
    return table(["DER in % (floor)", *map(group_words, shown)], rows)


def sounds_tables(results: Sequence[dict]) -> list[str]:
    """False speech on non-speech sound, alone and in calls: rows are sounds that some system takes for speech."""
    sounds = (result["parts"] for result in results if result["kind"] == "sounds")
    return [one for parts in sounds for one in sound_tables(parts, heard_only=True)]


def embeddings_table(results: Sequence[dict]) -> str:
    """How well speaker embeddings tell test speakers apart."""
    rows = [
        [system, _percent(s["equal_error_rate"]), s["speakers"], s["same_pairs"], s["other_pairs"]]
        for result in results
        if result["kind"] == "voices"
        for system, s in result["parts"].items()
    ]
    return table(["", "equal error rate (%)", "speakers", "pairs of one speaker", "pairs of two"], rows)


def ablation_table(ablation: dict) -> str:
    """Of what `python -m publishing.ablation` wrote: the error rates of the network without one part at a time."""
    several = several_speaker_groups(next(iter(ablation["variants"].values()))["groups"])
    rates = {"all_windows": "DER"} | {group: f"DER, {group_words(group)}" for group in several}
    rates |= {"overlapped_frames": "DER, overlap"}
    rows = []
    for name, variant in ablation["variants"].items():
        groups, flags = variant["groups"], f"`{variant['flags']}`" if variant["flags"] else ""
        rows.append(
            [name, *(_percent(groups[g][DER]) for g in rates), _percent(groups["all_windows"][ACCURACY]), flags]
        )
    floor = next(iter(ablation["variants"].values()))["groups"]
    cells = [_percent(floor[g][f"floor_{DER}"]) for g in rates]
    rows.append(["floor", *cells, _percent(floor["all_windows"][f"floor_{ACCURACY}"]), ""])
    return table(["%", *rates.values(), "frame accuracy", "flags"], rows)


def peers_table(result: dict) -> str:
    """Our models beside other systems, as of `python bench.py peers`."""
    parts = ("diarization_error_rate", "missed_speech", "false_alarm", "confusion")
    rows = []
    for name, system in result["systems"].items():
        unknown, known = system["unknown"]["total"], system["known"]["total"]
        given = "-" if known == unknown else _percent(known["diarization_error_rate"])
        rates = [_percent(unknown[rate]) for rate in (*parts, "count_exact")]
        rows.append([name, *rates, given, f"{system['cpu_seconds_per_hour']:.0f}"])
    floor = [_percent(unknown[f"floor_{rate}"]) for rate in parts]
    rows.append(["one-speaker oracle (floor)", *floor, "-", "-", "-"])
    columns = ("DER", "missed", "false alarm", "confusion", "number right", "DER, number given", "CPU s per hour")
    return table(["%", *columns], rows)


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.1f}"
