"""Scores against hand-computed answers, pyannote.metrics, and the published floors of real recordings."""

import socket
from pathlib import Path

import evaluate
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pyannote.core import Annotation, Segment, Timeline
from pyannote.metrics.diarization import DiarizationErrorRate

from data.rttm import read_rttm
from evaluation.diarization_error_rate import count_errors, error_rates, floor
from evaluation.window_scores import WindowScores, several_speaker_groups, tabulate, window_table

ROOT = Path(__file__).parent.parent
REAL = ROOT / "../shared/eval/recordings"
FRAME = 0.02
ERRORS = {"missed_speech": "missed detection", "false_alarm": "false alarm", "confusion": "confusion"}

unhurried = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def frames(*tracks: str) -> np.ndarray:
    """Draws one window: a string of '#' (speaks) and '.' per speaker, to (1, frames, speakers)."""
    return np.array([[state == "#" for state in track] for track in tracks]).T[None]


def to_annotation(activity: np.ndarray, uri: str = "window") -> Annotation:
    """Turns (frames, speakers) activity into an annotation, one turn per run of frames."""
    annotation = Annotation(uri=uri)
    for speaker, track in enumerate(activity.T):
        edges = np.flatnonzero(np.diff(track.astype(int), prepend=0, append=0))
        for start, end in edges.reshape(-1, 2):
            annotation[Segment(start * FRAME, end * FRAME), speaker] = f"speaker_{speaker}"
    return annotation


def turns_of(annotation: Annotation) -> list[tuple[float, float, str]]:
    return sorted(
        (round(turn.start, 3), round(turn.end, 3), speaker)
        for turn, _, speaker in annotation.itertracks(yield_label=True)
    )


@st.composite
def batches(draw, most_speakers: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and references of two windows, made of runs of frames, with any overlap."""
    pair = []
    for _ in range(2):
        speakers = draw(st.integers(1, most_speakers))
        runs = draw(arrays(bool, (2, 6, speakers)))
        pair.append(np.repeat(runs, 3, axis=1))
    predictions, references = pair
    return np.roll(predictions, draw(st.integers(0, 2)), axis=1), references


def real_annotation(name: str) -> Annotation:
    path = REAL / f"{name}.rttm"
    if not path.exists():
        pytest.skip(f"no real recording at {path}")
    return read_rttm(path)[name]


# Windows


def test_known_errors_of_one_window():
    references = frames("####..####", "..####....")
    # Tracks exchanged: the first is speaker two, a frame late and two short; the second has a false alarm.
    predictions = frames("...##.....", "#####.###.")
    expected = {
        "speakers": 2,
        "speech": 12,
        # Frame 2 lacks speaker two, 5 is silent, 9 lacks speaker one.
        "missed_speech": 3,
        # Frame 4 has speaker one besides speaker two.
        "false_alarm": 1,
        "confusion": 0,
        "correct_frames": 6,
        "frames": 10,
        "overlap_speech": 4,
        "overlap_missed_speech": 1,
        "overlap_false_alarm": 0,
        "overlap_confusion": 0,
        "overlap_correct_frames": 1,
        "overlap_frames": 2,
    }
    assert {name: int(value[0]) for name, value in count_errors(predictions, references).items()} == expected


def test_confusion_is_counted_where_the_wrong_speaker_speaks():
    counts = count_errors(frames("######", "......"), frames("####..", "....##"))
    assert (counts["confusion"], counts["missed_speech"], counts["false_alarm"]) == (2, 0, 0)
    assert counts["correct_frames"] == 4


def test_equally_good_permutations_are_told_apart_by_correct_frames():
    references = frames("##..", "....", "....")
    # Each track names speaker one once, but only the second does so in a frame without another track.
    predictions = frames("#...", ".#..", "#...")
    assert count_errors(predictions, references)["correct_frames"] == 3


@unhurried
@given(batches())
def test_counts_equal_pyannote_metrics(batch):
    predictions, references = batch
    counts = count_errors(predictions, references)
    for window, (prediction, reference) in enumerate(zip(predictions, references, strict=True)):
        uem = Timeline([Segment(0, len(reference) * FRAME)])
        detail = DiarizationErrorRate().compute_components(to_annotation(reference), to_annotation(prediction), uem=uem)
        assert counts["speech"][window] * FRAME == pytest.approx(detail["total"])
        for ours, theirs in ERRORS.items():
            assert counts[ours][window] * FRAME == pytest.approx(detail[theirs], abs=1e-6)


@unhurried
@given(batches(most_speakers=6))
def test_many_speakers_are_assigned_as_well_as_pyannote_metrics_does(batch):
    predictions, references = (np.concatenate([activity] * 2, axis=2) for activity in batch)
    rates = error_rates(count_errors(predictions[:1], references[:1]))
    uem = Timeline([Segment(0, references.shape[1] * FRAME)])
    metric = DiarizationErrorRate()
    expected = metric(to_annotation(references[0]), to_annotation(predictions[0]), uem=uem)
    assert rates["diarization_error_rate"] == pytest.approx(expected)


@unhurried
@given(batches(), st.randoms(use_true_random=False))
def test_counts_do_not_depend_on_the_order_of_speakers(batch, random):
    predictions, references = batch
    shuffled = []
    for activity in batch:
        order = list(range(activity.shape[2]))
        random.shuffle(order)
        shuffled.append(activity[..., order])
    counts = count_errors(predictions, references)
    for name, values in count_errors(*shuffled).items():
        if not name.startswith("overlap_"):
            np.testing.assert_array_equal(values, counts[name], err_msg=name)


@unhurried
@given(batches())
def test_errors_add_up_and_a_perfect_answer_has_none(batch):
    predictions, references = batch
    counts = count_errors(predictions, references)
    wrong = counts["missed_speech"] + counts["false_alarm"] + counts["confusion"]
    assert ((wrong == 0) == (counts["correct_frames"] == counts["frames"])).all()
    assert (counts["frames"] - counts["correct_frames"] <= wrong).all()
    assert error_rates(count_errors(references, references))["diarization_error_rate"] == 0
    assert error_rates(count_errors(references, references))["frame_accuracy"] == 1


@unhurried
@given(batches())
def test_masked_frames_count_as_if_cut_off(batch):
    predictions, references = batch
    mask = np.zeros(references.shape[:2], dtype=bool)
    mask[:, :7] = True
    masked, cut = (
        count_errors(predictions, references, mask),
        count_errors(predictions[:, :7], references[:, :7]),
    )
    for name, values in cut.items():
        np.testing.assert_array_equal(masked[name], values, err_msg=name)


def test_floor_knows_speech_but_not_speakers():
    references = frames("######....", "....####..")
    np.testing.assert_array_equal(floor(references), frames("########..", ".........."))
    rates = error_rates(count_errors(floor(references), references))
    # 10 speaker frames: the two overlapped ones lack a speaker, the last two of speaker two go to speaker one.
    assert rates == pytest.approx(
        {
            "diarization_error_rate": 0.4,
            "missed_speech": 0.2,
            "false_alarm": 0.0,
            "confusion": 0.2,
            "frame_accuracy": 0.6,
        }
    )


def test_rates_without_reference_speech_follow_pyannote_metrics():
    silence, noise = frames("....", "...."), frames("#...", "....")
    assert error_rates(count_errors(silence, silence))["diarization_error_rate"] == 0
    rates = error_rates(count_errors(noise, silence))
    assert (rates["diarization_error_rate"], rates["false_alarm"], rates["missed_speech"]) == (1, 1, 0)
    assert rates["frame_accuracy"] == 0.75
    reference = DiarizationErrorRate()(
        to_annotation(silence[0]), to_annotation(noise[0]), uem=Timeline([Segment(0, 1)])
    )
    assert reference == rates["diarization_error_rate"]


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        (np.zeros((1, 4, 2)), np.zeros((1, 5, 2)), r"\(1, 4, 2\) and references \(1, 5, 2\)"),
        (np.zeros((4, 2)), np.zeros((1, 4, 2)), r"predictions have shape \(4, 2\); expected \(windows"),
        (np.full((1, 4, 2), 0.7), np.zeros((1, 4, 2)), "0.7; expected 0 or 1, so threshold"),
        (np.full((1, 4, 2), np.nan), np.zeros((1, 4, 2)), "nan; expected 0 or 1"),
        (np.zeros((1, 4, 2)), np.full((1, 4, 2), -100), "references hold the value -100"),
    ],
)
def test_wrong_inputs_are_named(predictions, references, message):
    with pytest.raises(ValueError, match=message):
        count_errors(predictions, references)


def test_windows_are_told_apart_by_speakers():
    references = np.concatenate(
        [frames("....", "...."), frames("####", "...."), frames("###.", ".###"), frames("##..", "..##")]
    )
    predictions = np.concatenate(
        [frames("...#", "...."), frames("..##", "...."), frames("###.", "..##"), frames("####", "....")]
    )
    result = tabulate(predictions, references)
    assert list(result) == [
        "all_windows",
        "silent_windows",
        "one_speaker_windows",
        "two_speaker_windows",
        "overlapped_frames",
    ]
    assert [scores["windows"] for scores in result.values()] == [4, 1, 1, 2, 1]
    assert [scores["frames"] for scores in result.values()] == [16, 4, 4, 8, 2]
    rates = [round(scores["diarization_error_rate"], 4) for scores in result.values()]
    # All: 1 false alarm, 2 + 1 missed, 2 confused over 14 speaker frames.
    assert rates == [round(6 / 14, 4), 1.0, 0.5, 0.3, 0.25]
    floors = [round(scores["floor_diarization_error_rate"], 4) for scores in result.values()]
    # The oracle misses two overlapped frames and confuses one frame in the third window, two in the fourth.
    assert floors == [round(5 / 14, 4), 0.0, 0.0, 0.5, 0.5]
    accuracies = [scores["frame_accuracy"] for scores in result.values()]
    assert accuracies == [10 / 16, 3 / 4, 2 / 4, 5 / 8, 1 / 2]


def test_three_speakers_are_a_group_of_their_own():
    references = frames("##..", ".##.", "..##")
    result = tabulate(references, references)
    assert list(result) == ["all_windows", "more_speaker_windows", "overlapped_frames"]
    scores = WindowScores(num_speakers=3)
    scores.add(references, references)
    assert scores.result() == {name.replace("more", "three"): group for name, group in result.items()}
    assert several_speaker_groups(scores.result()) == ["three_speaker_windows"]
    scores.add(frames("##.."), frames("##.."))
    scores.add(*[frames("##..", "..##")] * 2)
    scores.add(*[frames("##..", "..##", "####", ".#..")] * 2)
    counts = {name: group["windows"] for name, group in scores.result().items()}
    assert counts == {
        "all_windows": 4,
        "one_speaker_windows": 1,
        "two_speaker_windows": 1,
        "three_speaker_windows": 1,
        "more_speaker_windows": 1,
        "overlapped_frames": 2,
    }


@unhurried
@given(batches())
def test_adding_batch_by_batch_equals_all_at_once(batch):
    predictions, references = batch
    scores = WindowScores()
    for window in range(len(references)):
        scores.add(predictions[window : window + 1], references[window : window + 1])
    assert scores.result() == tabulate(predictions, references)


def test_window_table_puts_each_figure_beside_its_floor():
    result = tabulate(
        np.concatenate([frames("....", "....")] * 2),
        np.concatenate([frames("###.", ".###"), frames("....", "....")]),
    )
    assert window_table(result).splitlines() == [
        "| % (floor) | windows | frames | DER | missed | false alarm | confusion | frame accuracy |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| all windows | 2 | 8 | 100.0 (50.0) | 100.0 (33.3) | 0.0 (0.0) | 0.0 (16.7) | 50.0 (62.5) |",
        "| silent windows | 1 | 4 | - | - | - | - | 100.0 (100.0) |",
        "| two-speaker windows | 1 | 4 | 100.0 (50.0) | 100.0 (33.3) | 0.0 (0.0) | 0.0 (16.7) | 0.0 (25.0) |",
        "| overlapped frames | 1 | 2 | 100.0 (50.0) | 100.0 (50.0) | 0.0 (0.0) | 0.0 (0.0) | 0.0 (0.0) |",
    ]


def test_no_window_is_no_score():
    with pytest.raises(ValueError, match="no window to score"):
        WindowScores().result()


@pytest.mark.parametrize(("name", "expected"), [("lca_auto_repairs_40", 3.9), ("ami_dev00", 16.9)])
def test_floor_of_real_windows_is_the_published_one(name, expected):
    """3 s windows every second, each with its own best mapping."""
    reference = real_annotation(name)
    seconds = {"lca_auto_repairs_40": 245.38, "ami_dev00": 30.0}[name]
    centres = (np.arange(int(seconds / FRAME)) + 0.5) * FRAME
    activity = np.stack(
        [
            np.any(
                [(centres >= turn.start) & (centres < turn.end) for turn in reference.label_timeline(label)],
                0,
            )
            for label in reference.labels()
        ],
        axis=1,
    )
    cut = np.stack([activity[start : start + 150] for start in range(0, len(activity) - 149, 50)])
    rate = tabulate(cut, cut)["all_windows"]["floor_diarization_error_rate"]
    assert round(100 * rate, 1) == expected


# The module for `evaluate`


@pytest.fixture
def metric(monkeypatch, tmp_path):
    def refuse(*args):
        raise AssertionError("the metric reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.chdir(ROOT)
    return evaluate.load("evaluation/diarization_error_rate", cache_dir=str(tmp_path))


def test_metric_loads_offline_and_equals_the_plain_functions(metric):
    predictions, references = (np.random.default_rng(seed).random((20, 15, 2)) < 0.4 for seed in (1, 2))
    for start in range(0, 20, 5):
        metric.add_batch(predictions=predictions[start : start + 5], references=references[start : start + 5])
    expected = tabulate(predictions, references)["all_windows"]
    assert metric.compute() == {key: value for key, value in expected.items() if isinstance(value, float)}


def test_metric_takes_windows_of_any_length_and_number_of_speakers(metric):
    metric.add(prediction=[[1], [0], [1]], reference=[[0, 1], [0, 0], [1, 1]])
    metric.add(prediction=np.ones((2, 3), dtype=int), reference=np.ones((2, 1), dtype=int))
    rates = metric.compute()
    assert (rates["missed_speech"], rates["confusion"], rates["false_alarm"]) == (1 / 5, 0, 4 / 5)
    assert rates["frame_accuracy"] == 2 / 5
    assert rates["floor_diarization_error_rate"] == 1 / 5


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ([[[0.3]]], [[[1]]], "0.3; expected 0 or 1"),
        ([[[1]], [[1]]], [[[1]], [[1], [0]]], "window 1 has 1 frames in predictions and 2 in references"),
        ([], [], "no window to score"),
    ],
)
def test_metric_names_wrong_inputs(metric, predictions, references, message):
    with pytest.raises(ValueError, match=message):
        metric.compute(predictions=predictions, references=references)
