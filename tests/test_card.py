"""The card and the report: rendered with everything measured and with nothing, and read back by huggingface_hub."""

import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results
from transformers.pipelines import PIPELINE_REGISTRY

from evaluation.window_scores import WindowScores
from publishing import card as card_module
from publishing import report
from publishing.card import NOT_MEASURED, write_card
from publishing.report import command, of_model, render, write_readme_table, write_report
from publishing.results_tables import key_rates, overview, simulated_table

ROOT = Path(__file__).resolve().parent.parent
MOST_LINES = 130
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
    pairs = {"mine": {"whole": {"unknown": whole(0.25), "known": whole(0.125)}, "windows": windows(False)}}
    voices = {"equal_error_rate": 0.042, "speakers": 9, "pieces": 40, "same_pairs": 90, "other_pairs": 700}
    trained, clean = {"mine": windows(False)} | peer, {"mine": windows(True)} | peer
    alone, calls = {"false_speech": 7.25, "speakers": 1}, {"calls": 4, "false_speech": 3.5, "speakers": 2.5}
    calls |= {"extra_speakers": 0.75, "extra_speakers_without": 0.25}
    calls |= {"diarization_error_rate": 0.1, "diarization_error_rate_without": 0.1}
    sounds = {"tone": {"mine": alone}, "calls with rings": {"mine": calls}}
    beside = {"mine": windows(False), "mine/model.onnx": windows(False)}
    return [
        {"kind": "windows", "title": "Windows", "parts": {"as in training": trained, "clean": clean}} | shared,
        {"kind": "windows", "title": "ONNX", "in_summary": False, "parts": {"as in training": beside}} | shared,
        {"kind": "recordings", "title": "Real", "each": True, "parts": {"all recordings": recordings}} | shared,
        {"kind": "recordings", "title": "Simulated", "each": False, "parts": {"2 speakers": pairs}} | shared,
        {"kind": "sounds", "title": "Sounds", "parts": sounds} | shared,
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
    "corpora": {
        "librispeech": {"hours": 1.81, "speakers": 187},
        "cmu_arctic": {"hours": 0.04, "speakers": 3},
    },
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
    """A card without an empty field or section, short, whose metadata are understood."""
    card = ModelCard(text)
    for leftover in ("None", "{{", "}}", "{%", "nan", " () ", "Undefined", "\n\n\n"):
        assert leftover not in text, leftover
    sections = re.split(r"^## .*$", card.text, flags=re.M)
    assert len(sections) == 7 and all(section.strip() for section in sections)
    assert len(text.splitlines()) <= MOST_LINES
    for block in re.findall(r"```python\n(.*?)```", text, re.S):
        compile(block, "card", "exec")
    return card


def test_a_card_with_everything_measured(model):
    write(model, training=TRAINING, evaluation=of_model(results(), "mine"), latency=LATENCY, export=EXPORT)
    (model / "model.onnx").write_bytes(bytes(4_600_000))
    for picture in ("curves.png", "timeline.png"):
        (model / picture).touch()
    card = check(write_card(model).read_text())
    assert NOT_MEASURED not in card.content
    for words in (
        "2.31 M",
        "8,000 steps of 32 windows",
        "3.2 hours",
        "| LibriSpeech, read English | CC BY 4.0 | 187 | 109 |",
        "| CMU ARCTIC, read English | free with attribution | 3 | 2 |",
        "(curves.png)",
        "(timeline.png)",
        "(evaluation.json)",
        "1.7 times as long",
        "`model.onnx` 4.6 MB",
        "+0.12",
        "CO2",
        "pip install",
    ):
        assert words in card.text, words
    assert card.data.license == "apache-2.0" and "segmentation-3.0 |" not in card.text
    assert card.data.datasets == ["openslr/librispeech_asr"] and card.data.language == ["en"]


def test_the_weakest_rates_come_first_each_beside_its_floor(model):
    write(model, training=TRAINING, evaluation=of_model(results(), "mine"))
    table = re.search(r"^\| % \|.*?\n\n", write_card(model).read_text(), re.M | re.S)[0].strip().splitlines()[2:]
    assert table[0] == "| simulated recordings: 2 speakers | 25.0 | 25.0 | 12.5 | 87.5 |"
    assert table[1] == "| call | 12.5 | 12.5 | 6.2 | - |"
    assert table[-1] == "| simulated 3 s windows, as in training, two speakers | 0.0 | 50.0 | - | - |"
    rates = [float(row.split("|")[2]) for row in table]
    assert rates == sorted(rates, reverse=True)


def test_many_real_recordings_are_the_two_weakest_and_all(model):
    whole_set = whole(0.1)
    whole_set["recordings"] = {f"r{n}": whole(n / 10)["recordings"]["call"] for n in range(6)}
    scores = {"whole": {"unknown": whole_set}, "windows": None}
    result = {"kind": "recordings", "title": "Real", "each": True, "parts": {"all": {"mine": scores}}}
    assert [rate.on for rate in key_rates([result], "mine")] == ["r5", "r4", "all 6 real recordings"]


def test_rates_over_shifts_are_a_mean_and_a_range(model):
    shifted = whole(0.25)
    shifted["shifts"] = {"total": {"diarization_error_rate": [0.25, 0.5, 0.75]}, "recordings": {}}
    scores = {"whole": {"unknown": shifted, "known": whole(0.125)}, "windows": None}
    result = {"kind": "recordings", "title": "Simulated", "each": False, "parts": {"2 speakers": {"mine": scores}}}
    write(model, training=TRAINING, evaluation=[result])
    card = check(write_card(model).read_text())
    assert "| simulated recordings: 2 speakers | 50.0 [25.0 to 75.0] | 25.0 | 12.5 | 87.5 |" in card.text
    assert "| 2 speakers | 25.0 | 50.0 [25.0 to 75.0] | 87.5 | 12.5 |" in simulated_table([result])


@pytest.mark.parametrize(("scored", "said"), [(None, True), ("2026-11-26", True), ("2026-11-27", False)])
def test_older_scores_of_simulated_recordings_are_marked(model, scored, said):
    kept = [result | ({"scored": scored} if scored else {}) for result in results()]
    write(model, training=TRAINING, evaluation=of_model(kept, "mine"))
    assert ("to be scored anew" in write_card(model).read_text()) is said
    assert ("to be scored anew" in render(model, kept, "test", {})) is said


def test_the_index_names_only_data_sets_and_tasks_that_exist(model):
    evaluation = of_model(results(), "mine")
    for count in evaluation[2]["parts"]["all recordings"]["mine"]["whole"].values():
        count["recordings"]["ami_dev00"] = count["recordings"]["call"]
    write(model, training=TRAINING, evaluation=evaluation)
    data = ModelCard(write_card(model).read_text()).data
    assert data.pipeline_tag == "audio-classification" and data.pipeline_tag in PIPELINE_REGISTRY.get_supported_tasks()
    (entry,) = data.eval_results
    assert (entry.dataset_type, entry.task_type) == ("diarizers-community/ami", "audio-classification")
    assert (entry.metric_type, entry.metric_value) == ("der", 12.5) and "oracle: 12.5" in entry.metric_name


def posted_to_the_hub(card: ModelCard, monkeypatch) -> dict:
    """What `ModelCard.validate` sends to the Hub, which answers that it is well."""
    sent = []
    well = SimpleNamespace(raise_for_status=lambda: None, status_code=200)
    session = SimpleNamespace(post=lambda url, json, **_: sent.append((url, json)) or well)
    monkeypatch.setattr("huggingface_hub.repocard.get_session", lambda: session)
    card.validate()
    ((url, body),) = sent
    assert url.endswith("/api/validate-yaml") and body["repoType"] == "model"
    return yaml.safe_load(body["content"].split("---\n")[1])


def test_the_metadata_are_valid_for_the_hub(model, monkeypatch):
    evaluation = of_model(results(), "mine")
    for count in evaluation[2]["parts"]["all recordings"]["mine"]["whole"].values():
        count["recordings"]["ami_dev00"] = count["recordings"]["call"]
    write(model, training=TRAINING, evaluation=evaluation)
    data = posted_to_the_hub(ModelCard(write_card(model).read_text()), monkeypatch)
    assert set(data) <= {"datasets", "language", "library_name", "license", "pipeline_tag", "tags", "model-index"}
    name, entries = model_index_to_eval_results(data["model-index"])
    assert name == "mine" and [entry.dataset_type for entry in entries] == ["diarizers-community/ami"]
    repositories = [*data["datasets"], *(entry.dataset_type for entry in entries)]
    assert all(re.fullmatch(r"[\w.-]+/[\w.-]+", repository) for repository in repositories)
    assert all(re.fullmatch("[a-z]{2}", language) for language in data["language"])


def test_a_card_names_the_places_of_the_setting(model, monkeypatch):
    write(model, training=TRAINING)
    assert "huggingface.co" not in write_card(model).read_text()
    monkeypatch.setattr(card_module, "MODELS", {"mine": "somebody/mine"})
    monkeypatch.setattr(card_module, "REPOSITORY", "https://github.com/somebody/fast-diarization")
    monkeypatch.setattr(card_module, "SPACE", "somebody/page")
    text = write_card(model).read_text()
    check(text)
    assert text.count('"somebody/mine"') == 3 and "(https://huggingface.co/spaces/somebody/page)" in text
    assert "[repository](https://github.com/somebody/fast-diarization)" in text and "url = {https://github" in text


def test_a_card_has_a_handful_of_figures_with_the_weakest_two(model):
    sets = {f"set {n}": {"mine": {"whole": {"unknown": whole(n / 20)}, "windows": None}} for n in range(1, 8)}
    sets["last"] = {"mine": {"whole": {"unknown": whole(0.9)}, "windows": None}}
    write(
        model,
        training=TRAINING,
        evaluation=[{"kind": "recordings", "title": "Simulated", "each": False, "parts": sets}],
    )
    rows = re.findall(r"^\| simulated recordings: (.*?) \|", write_card(model).read_text(), re.M)
    assert rows == ["last", "set 7", "set 4", "set 3", "set 2", "set 1"]


@pytest.mark.parametrize(("name", "place"), [("mine", "path/to/mine"), ("user/mine", "user/mine")])
def test_the_code_of_a_card_names_a_place_that_can_be_loaded(model, name, place):
    write(model, training=TRAINING | {"name": name, "hub_dataset": "user/speech", "corpora": None})
    card = check(write_card(model).read_text())
    assert card.text.count(f'"{place}"') == 3
    assert card.data.datasets == ["user/speech"]


def test_training_in_several_runs_is_a_table_and_no_command_starts_from_lost_weights(model):
    earlier = [{"steps": 900, "hours": 0.5, "learning_rate": 1e-3, "what": "from scratch"}]
    earlier.append({"steps": None, "hours": None, "learning_rate": None, "what": "layers of another model"})
    command = "accelerate launch train.py --start_from runs/lost --bf16 true"
    write(model, training=TRAINING | {"earlier": earlier, "command": command, "averaged": True})
    card = check(write_card(model).read_text())
    assert "| from scratch | 900 | 0.5 | 0.001 |" in card.text and "| bfloat16 | 8,000 | 3.2 | 0.001 |" in card.text
    assert "| layers of another model | - | - | - |" in card.text
    assert "8,900 steps" in card.text and "3.8 hours" in card.text and "the mean of those before and after" in card.text
    assert "runs/lost" not in card.text and "--start_from path/to/mine" in card.text


def test_a_card_with_nothing_measured(model):
    card = check(write_card(model).read_text())
    assert card.data.eval_results is None and card.data.datasets is None
    assert card.text.count(NOT_MEASURED) == 3


def test_a_card_of_a_model_just_trained_has_the_windows_of_training(model):
    training = TRAINING | {"dataset": "demo", "corpora": None, "hub_dataset": None}
    write(model, training=training, windows=windows(True)["groups"])
    card = check(write_card(model).read_text())
    assert "| 3 s windows simulated from held-out speakers of demo | 25.0 | 50.0 | - | - |" in card.text
    assert card.data.eval_results is None and "synthetic voices only" in card.text
    assert "Trained by: `accelerate launch train.py --dataset path/to/speech`" in card.text
    write(model, training=training | {"hub_dataset": "user/speech"})
    (entry,) = ModelCard(write_card(model).read_text()).data.eval_results
    assert entry.dataset_type == "user/speech" and "held-out speakers" in entry.dataset_name


def test_a_model_gets_its_own_results_alone():
    kept = of_model(results(), "mine")
    assert [set(next(iter(r["parts"].values()))) for r in kept[:2]] == [{"mine"}, {"mine", "mine/model.onnx"}]
    assert of_model(results(), "other") == []


ABLATION = {
    "steps": 1000,
    "set": "windows of validation speakers",
    "variants": {
        "everything": {"flags": "", "groups": windows(False)["groups"]},
        "no rooms": {"flags": "--augment false", "groups": windows(True)["groups"]},
    },
}


def test_the_report_has_every_section_filled(tmp_path):
    (tmp_path / "docs/pictures").mkdir(parents=True)
    (tmp_path / "docs/pictures/curves-mine.png").touch()
    write_report(tmp_path / "docs", {"split": "test", "results": results(), "ablation": ABLATION})
    text = (tmp_path / "docs/RESULTS.md").read_text()
    assert "{{" not in text and "None" not in text and "\n\n\n" not in text
    assert all(section.strip() for section in re.split(r"^## .*$", text, flags=re.M))
    for row in (
        "| call | 2 | 12.5 | 12.5, 2 found | 6.2 |",
        "| mine | unknown | 12.5 (12.5) | 12.5 (12.5) | 12.5 (12.5) | 12.5 (12.5) | 12.5 (12.5) | 87.5 |",
        "| 2 speakers | 25.0 | 25.0 | 87.5 | 12.5 |",
        "| simulated, two speakers | 50.0 | 0.0 | 25.0 |",
        "| clean | 50.0 | 25.0 | 25.0 | 50.0 | 25.0 | 25.0 |",
        "| `mine/model.onnx` | 0.0 (50.0) | 0.0 (50.0) |",
        "| tone | 7.2 (1) |",
        "| calls with rings | 0.8 (0.2); 3.5 |",
        "| mine | 4.2 | 9 | 90 | 700 |",
        "| no rooms | 25.0 | 25.0 | 50.0 | 66.7 | `--augment false` |",
        "python -m evaluation X --model MODEL",
    ):
        assert row in text, row
    assert "(pictures/curves-mine.png)" in text and "](NEGATIVE_RESULTS.md)" in text
    kept = json.loads((tmp_path / "docs/results.json").read_text())
    assert kept["results"] == json.loads(json.dumps(results()))


def test_other_systems_are_in_the_report_where_they_were_measured(tmp_path):
    rates = dict.fromkeys(("diarization_error_rate", "missed_speech", "false_alarm", "confusion", "count_exact"), 0.25)
    total = rates | {f"floor_{rate}": 0.5 for rate in rates}
    ours = {count: {"recordings": {"a": {}, "b": {}}, "total": total} for count in ("unknown", "known")}
    given = {"known": {"total": total | {"diarization_error_rate": 0.125}}}
    systems = {"mine": ours | given | {"cpu_seconds_per_hour": 33.4}, "other": ours | {"cpu_seconds_per_hour": 250.0}}
    (tmp_path / "performance").mkdir()
    (tmp_path / "performance/peers.json").write_text(json.dumps({"systems": systems, "minutes": 7.6}))
    report = {"split": "test", "results": results(), "ablation": {}}
    assert "Beside other systems" not in render(tmp_path, **report)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/peers.png").touch()
    text = render(tmp_path, **report)
    assert "2 real recordings that none of our models was trained on, 8 minutes" in text
    assert "| mine | 25.0 | 25.0 | 25.0 | 25.0 | 25.0 | 12.5 | 33 |" in text
    assert "| other | 25.0 | 25.0 | 25.0 | 25.0 | 25.0 | - | 250 |" in text
    assert "| one-speaker oracle (floor) | 50.0 | 50.0 | 50.0 | 50.0 | - | - | - |" in text


def test_a_report_without_results_says_so(tmp_path):
    write_report(tmp_path, {"split": "validation", "results": [], "ablation": {}})
    text = (tmp_path / "RESULTS.md").read_text()
    assert "Not measured." in text and "not a final score" in text and "## Real recordings" not in text


def test_the_pages_are_written_again_without_scoring(model, tmp_path, monkeypatch):
    write(model, training=TRAINING)
    (model / "curves.png").write_bytes(b"picture")
    (tmp_path / "results.json").write_text(json.dumps({"split": "test", "results": results(), "ablation": ABLATION}))
    arguments = ["--from", str(tmp_path / "results.json"), str(model), "--output", str(tmp_path / "pages")]
    monkeypatch.setattr(sys, "argv", ["report", *arguments])
    report.main()
    assert (tmp_path / "pages/results.json").read_text().strip() == json.dumps(
        json.loads((tmp_path / "results.json").read_text()), indent=1
    )
    assert json.loads((model / "evaluation.json").read_text()) == json.loads(json.dumps(of_model(results(), "mine")))
    assert (tmp_path / "pages/pictures/curves-mine.png").read_bytes() == b"picture"
    assert "curves-mine.png" in (tmp_path / "pages/RESULTS.md").read_text() and (model / "README.md").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "{tmp}/none.json"], "error: .*No such file"),
        (["--from", "{tmp}/other.json"], "error: --from .*other.json does not hold split, results and ablation"),
        (["--from", "{tmp}/text.json"], "error: "),
    ],
)
def test_a_report_that_cannot_be_read_is_one_line(tmp_path, monkeypatch, arguments, message):
    (tmp_path / "other.json").write_text("[]")
    (tmp_path / "text.json").write_text("text")
    flags = [flag.format(tmp=tmp_path) for flag in arguments]
    monkeypatch.setattr(sys, "argv", ["report", *flags, "--output", str(tmp_path)])
    with pytest.raises(SystemExit, match=message) as left:
        report.main()
    assert "\n" not in str(left.value)


def test_the_table_of_readme_stands_between_its_marks(model, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- results: begin -->\nold\n<!-- results: end -->\nafter\n")
    write(model, latency=LATENCY | {"peer_p50_ms": 11.0, "peer_p99_ms": 12.0})
    for _ in range(2):
        write_readme_table(readme, results(), [model])
    text = readme.read_text()
    assert text.startswith("before\n<!-- results: begin -->\n| DER in % | floor | mine | segmentation-3.0 |\n")
    assert text.endswith("<!-- results: end -->\nafter\n") and "old" not in text
    rows = text.splitlines()[4:]
    assert rows[0] == "| call | 12.5 | 12.5 | - |" and "| 6.9 / 8.0 | 11.0 / 12.0 |" in text


PUBLISHED = sorted(file.parent for file in (ROOT / "pretrained").glob("*/evaluation.json"))


@pytest.mark.parametrize("directory", PUBLISHED, ids=lambda path: path.name)
def test_a_published_card_is_that_of_the_files_beside_it(directory, tmp_path):
    """Nobody edited it by hand, and its figures are those of evaluation.json."""
    copy = tmp_path / directory.name
    shutil.copytree(directory, copy, ignore=shutil.ignore_patterns("*.py", "README.md"))
    written = write_card(copy).read_text()
    place = directory.relative_to(ROOT).as_posix()
    assert written.replace(f"path/to/{directory.name}", place) == (directory / "README.md").read_text()
    check(written)
    assert "runs/" not in written.replace("--output_dir runs/mine", "")


@pytest.mark.skipif(not (ROOT / "docs/results.json").is_file(), reason="no results are published yet")
def test_the_published_results_are_those_of_the_file_beside_them():
    kept = json.loads((ROOT / "docs/results.json").read_text())
    text = render(ROOT / "docs", **kept)
    assert text == (ROOT / "docs/RESULTS.md").read_text()
    assert len(text.splitlines()) <= 160
    assert overview(kept["results"]) in (ROOT / "README.md").read_text()


def test_the_command_of_a_result_names_no_place_of_this_machine():
    options = {"dataset": "/home/me/speech", "noise": "/home/me/noise", "split": "test", "part": "clean"}
    assert command("evaluation/sets/windows.json", options) == (
        "python -m evaluation evaluation/sets/windows.json --dataset path/to/speech --noise path/to/noise --split test "
        '--part "clean" --model MODEL'
    )
