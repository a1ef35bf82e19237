"""The card and the report: rendered with everything measured and with nothing, and read back by huggingface_hub."""

import json
import re

import pytest
from huggingface_hub import ModelCard

from evaluation.headlines import headlines, summary
from evaluation.window_scores import WindowScores
from publishing.card import NOT_MEASURED, write_card
from publishing.report import command, of_model, write_report

RATES = ("diarization_error_rate", "missed_speech", "false_alarm", "confusion", "jaccard_error_rate")


def windows(error: bool) -> dict:
    scores = WindowScores()
    references = [[[1, 0]] * 50 + [[1, 1]] * 50 + [[0, 1]] * 50]
    predictions = [[[1, 0]] * 50 + [[1, int(not error)]] * 50 + [[0, 1]] * 50]
    scores.add(predictions, references)
    groups = scores.result()
    every = groups["all_windows"]
    return {"groups": groups, "by_overlap": {"overlap above 30 %": every}, "by_origin": {"call": every}}


def whole(rate: float) -> dict:
    one = {"speech": 10.0} | {p + r: rate for p in ("", "floor_") for r in RATES}
    one |= {"reference_speakers": 2, "hypothesis_speakers": 2, "speaker_count_error": 0}
    total = {name: value for name, value in one.items() if "_speakers" not in name}
    return {"collar": 0.0, "skip_overlap": False, "recordings": {"call": one}, "total": total, "count_right": 0.875}


def results() -> list[dict]:
    peer = {"segmentation-3.0": windows(True)}
    shared = {"settings": "Collar 0.", "command": "python -m evaluation X --model MODEL"}
    recordings = {"mine": {"whole": {"unknown": whole(0.125), "known": whole(0.0625)}, "windows": windows(False)}}
    recordings |= {"segmentation-3.0": {"whole": {}, "windows": windows(True)}}
    voices = {"equal_error_rate": 0.042, "speakers": 9, "pieces": 40, "same_pairs": 90, "other_pairs": 700}
    trained, clean = {"mine": windows(False)} | peer, {"mine": windows(True)} | peer
    beside = {"mine": windows(False), "mine/model.onnx": windows(False)}
    return [
        {"kind": "windows", "title": "Windows", "parts": {"as in training": trained, "clean": clean}} | shared,
        {"kind": "windows", "title": "ONNX", "in_summary": False, "parts": {"as in training": beside}} | shared,
        {"kind": "recordings", "title": "Real", "each": True, "parts": {"all recordings": recordings}} | shared,
        {"kind": "voices", "title": "Voices", "parts": {"mine": voices}} | shared,
    ]


def write(directory, **files):
    for name, content in files.items():
        (directory / f"{name}.json").write_text(json.dumps(content))


@pytest.fixture
def model(tmp_path):
    directory = tmp_path / "mine"
    directory.mkdir()
    write(directory, config={"encoder_type": "lightweight-cnn", "num_speakers": 2, "embedding_size": 192})
    return directory


TRAINING = {
    "name": "mine",
    "parameters": 2_310_000,
    "dataset": "path/to/speech",
    "licence": "unknown",
    "corpora": {"librispeech": 1.8, "speechocean762": 4.4},
    "window_seconds": 3.0,
    "steps": 8000,
    "batch_size": 32,
    "learning_rate": 0.001,
    "schedule": "cosine",
    "hours": 3.25,
    "device": "a CPU with 2 cores",
    "command": "accelerate launch train.py --dataset path/to/speech",
}
EXPORT = {"opset": 17, "difference": 1e-5, "int8": {"der_points": 0.125}}
LATENCY = {"p50_ms": 6.9, "p95_ms": 7.2, "p99_ms": 8.0, "peer_ratio": 1.7, "provider": "cpu", "threads": 1}
LATENCY |= {"window_seconds": 3.0, "machine": "AMD EPYC", "file": "model.onnx"}


def check(text: str) -> ModelCard:
    """A card without an empty field or section, whose metadata are understood."""
    card = ModelCard(text)
    for leftover in ("None", "{{", "}}", "{%", "nan", " () ", "Undefined"):
        assert leftover not in text, leftover
    sections = re.split(r"^## .*$", card.text, flags=re.M)
    assert len(sections) == 8 and all(section.strip() for section in sections)
    return card


def test_a_card_with_everything_measured(model):
    write(model, training=TRAINING, evaluation=of_model(results(), "mine"), latency=LATENCY, export=EXPORT)
    (model / "model.onnx").write_bytes(bytes(4_600_000))
    (model / "curves.png").touch()
    card = check(write_card(model).read_text())
    assert NOT_MEASURED not in card.content
    index = {(r.dataset_name, r.metric_name): r.metric_value for r in card.data.eval_results}
    assert index["Windows, as in training: two-speaker windows", "DER in percent (floor 50.0)"] == 0.0
    assert index["Real: call, number of speakers unknown", "DER in percent (floor 12.5)"] == 12.5
    assert index["Real: all recordings, number of speakers known", "DER in percent (floor 6.2)"] == 6.2
    assert index["Real: all recordings", "number of speakers right in percent"] == 87.5
    assert index["Voices", "equal error rate in percent"] == 4.2
    for words in (
        "2.31 M",
        "8000 steps",
        "3.2 hours",
        "CC BY 4.0",
        "curves.png",
        "1.7 times as long",
        "4.6",
        "+0.12",
        "CO2",
    ):
        assert words in card.text
    assert card.data.datasets is None, "path/to/speech is no data set of the Hub"
    assert card.data.license == "apache-2.0" and "segmentation-3.0 |" not in card.text


@pytest.mark.parametrize(("name", "place"), [("mine", "path/to/mine"), ("user/mine", "user/mine")])
def test_the_code_of_a_card_names_a_place_that_can_be_loaded(model, name, place):
    write(model, training=TRAINING | {"name": name, "hub_dataset": "user/speech"})
    card = check(write_card(model).read_text())
    assert card.text.count(f'"{place}"') == 4
    assert card.data.datasets == ["user/speech"]
    for block in re.findall(r"```python\n(.*?)```", card.text, re.S):
        compile(block, "card", "exec")


def test_a_card_with_nothing_measured(model):
    card = check(write_card(model).read_text())
    assert card.data.eval_results is None
    assert card.text.count(NOT_MEASURED) == 5


def test_a_card_of_a_model_just_trained_has_the_windows_of_training(model):
    write(model, training=TRAINING | {"dataset": "demo", "corpora": None}, windows=windows(True)["groups"])
    card = check(write_card(model).read_text())
    assert {r.metric_type for r in card.data.eval_results} == {"der", "accuracy"}
    assert "synthetic voices only" in card.text


def test_every_figure_of_the_index_stands_in_the_tables(model):
    write(model, evaluation=of_model(results(), "mine"))
    card = ModelCard(write_card(model).read_text())
    for figure in headlines(results(), "mine"):
        assert f"| {figure.metric}, {figure.on} | {figure} |" in card.text


def test_a_model_gets_its_own_results_alone():
    kept = of_model(results(), "mine")
    assert [set(next(iter(r["parts"].values()))) for r in kept[:2]] == [{"mine"}, {"mine", "mine/model.onnx"}]
    assert of_model(results(), "other") == []


def test_summary_puts_systems_side_by_side():
    lines = summary(results(), ["mine", "segmentation-3.0"]).splitlines()
    assert "| DER, Windows, as in training: all windows | 0.0 (50.0) | 25.0 (50.0) |" in lines
    assert "| equal error rate, Voices | 4.2 | - |" in lines


def test_the_report_has_every_section_filled(model, tmp_path):
    write(model, training=TRAINING)
    (model / "curves.png").write_bytes(b"picture")
    ablation = {
        "steps": 1000,
        "set": "windows of validation speakers",
        "variants": {
            "everything": {"flags": "", "groups": windows(False)["groups"]},
            "no rooms": {"flags": "--augment false", "groups": windows(True)["groups"]},
        },
    }
    write_report(tmp_path / "docs", results(), [model], ablation, "test")
    text = (tmp_path / "docs/RESULTS.md").read_text()
    assert "{{" not in text and "None" not in text
    assert all(section.strip() for section in re.split(r"^## .*$", text, flags=re.M))
    assert "| no rooms | 25.0 | 25.0 | 50.0 | 66.7 | `--augment false` |" in text
    assert (tmp_path / "docs/pictures/curves-mine.png").read_bytes() == b"picture"
    kept = json.loads((tmp_path / "docs/results.json").read_text())
    assert kept["results"] == json.loads(json.dumps(results()))
    write_report(tmp_path / "bare", [], [model], {}, "validation")
    assert "Not measured." in (tmp_path / "bare/RESULTS.md").read_text()


def test_the_command_of_a_result_names_no_place_of_this_machine():
    options = {"dataset": "/home/me/speech", "noise": "/home/me/noise", "split": "test", "part": "clean"}
    assert command("evaluation/sets/windows.json", options) == (
        "python -m evaluation evaluation/sets/windows.json --dataset path/to/speech --noise path/to/noise --split test "
        '--part "clean" --model MODEL'
    )
