"""The number of speakers in words and for JSON: what is found, what else is possible."""

from modeling.counting_fast_diarization import CountEstimate


def count_sentence(count: CountEstimate) -> str:
    """`1 speaker found; 2 possible: try --num_speakers 2`, or the number alone where it is sure."""
    found = f"{count.found} speaker{'s' * (count.found != 1)} found"
    if count.sure:
        return found
    first = next(iter(_others(count, count.found + 1) or _others(count)))
    return f"{found}; {other_counts(count)}: try --num_speakers {first}"


def other_counts(count: CountEstimate) -> str:
    """`2 or 3 possible`, of the numbers that are not found."""
    others = _others(count)
    return f"{' or '.join(map(str, others)) if len(others) < 4 else f'{others[0]} to {others[-1]}'} possible"


def _others(count: CountEstimate, least: int = 1) -> list[int]:
    return [number for number in range(max(count.fewest, least), count.most + 1) if number != count.found]


def count_facts(count: CountEstimate) -> dict[str, object]:
    """For JSON: `num_speakers_range` and `num_speakers_sure`."""
    return {"num_speakers_range": [count.fewest, count.most], "num_speakers_sure": count.sure}
