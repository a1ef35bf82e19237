"""Lines of a training, from figures known by hand."""

import pytest

from evaluation.window_scores import WindowScores
from training.progress import duration, evaluation_lines, training_line


def test_the_lines_of_an_evaluation_are_in_per_cent_beside_the_oracle():
    scores = WindowScores()
    scores.add([[[1, 0]] * 100], [[[1, 0]] * 75 + [[0, 1]] * 25])
    result = scores.result()
    rates = "DER 25.0 % (25.0 %), two speakers 25.0 % (25.0 %), frames exactly right 75.0 % (75.0 %)"
    assert list(evaluation_lines(result)) == [f"held-out windows (one-speaker oracle): {rates}"]
    several = list(evaluation_lines(result | {"corpora": {"demo": result, "user/calls": result}}))
    assert several[1:] == [
        f"held-out windows of {name} (one-speaker oracle): {rates}" for name in ("demo", "user/calls")
    ]


def test_the_line_of_an_interval():
    logs = {"loss": 4.4715, "grad_norm": 7.4, "learning_rate": 0.0004999, "epoch": 0.67}
    assert training_line(logs) == "loss 4.47, learning rate 0.0005"
    assert training_line(logs | {"loss_speaker": 3.4692}) == "loss 4.47 (speaker 3.47), learning rate 0.0005"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (89.4, "89 s"), (90, "2 min"), (600, "10 min"), (5_340, "89 min"), (5_400, "1 h 30 min")]
    + [(7_180, "2 h 0 min"), (360_000, "100 h 0 min")],
)
def test_durations(seconds, words):
    assert duration(seconds) == words
