"""The command `train.py`: what it makes and says, that it learns, and that whatever is wrong is one line."""

import json
import re
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from annotated_fixtures import talks, write_directory
from transformers import TrainingArguments

import train
from diarization.backends import open_network
from modeling.linking_fast_diarization import diarize
from modeling.task_fast_diarization import usual_shares
from training import curves
from training.arguments import Training, parse

ROOT = Path(__file__).parents[1]
REAL = ROOT.parent / "shared" / "speech"


def run(monkeypatch, *flags) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", *map(str, flags)])
    train.main()


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, str, str]:
    """Directory, output and error output of a short run on the demo corpus with a narrow network."""
    output = tmp_path_factory.mktemp("demo")
    flags = "--hidden_size 64 --window_seconds 2 --per_device_train_batch_size 16 --max_steps 80 --warmup_steps 5"
    flags += " --learning_rate 3e-3 --eval_windows 128 --eval_on_start --eval_steps 40 --save_steps 40"
    command = [sys.executable, "train.py", *flags.split(), "--output_dir", output]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return output, done.stdout, done.stderr


def log_of(output: Path) -> list[dict]:
    newest = max(output.glob("checkpoint-*"), key=lambda checkpoint: int(checkpoint.name.split("-")[1]))
    return json.loads((newest / "trainer_state.json").read_text())["log_history"]


@pytest.mark.training
def test_it_improves_on_its_own_start(trained):
    log = log_of(trained[0])
    accuracy = [entry["eval_frame_accuracy"] for entry in log if "eval_frame_accuracy" in entry]
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert accuracy[-1] > accuracy[0]
    assert losses[-1] < losses[0]


@pytest.mark.training
def test_it_says_how_good_the_model_is_and_where_everything_is(trained):
    output, said, _ = trained
    for group in ("all windows", "one-speaker windows", "two-speaker windows", "overlapped frames"):
        assert re.search(rf"^\| {group} \|.* \d+\.\d \(\d+\.\d\) \|$", said, re.M), said
    for place in (output / "model", output / "model" / "curves.png"):
        assert str(place) in said and place.exists()


@pytest.mark.training
def test_it_says_in_per_cent_how_far_it_is_and_prints_no_warning(trained):
    _, said, beside = trained
    lines = said.splitlines()
    steps = [line for line in lines if ": loss " in line]
    terms = r"loss \d+\.\d\d \(segmentation \d+\.\d\d, affinity \d+\.\d\d, speaker \d+\.\d\d\), learning rate \S+"
    for number, (step, line) in enumerate(zip((20, 40, 60, 80), steps, strict=True), 1):
        assert re.fullmatch(rf"step {step} of 80 \({25 * number} %\), \d+ (s|min) left: {terms}", line), line
    rate = r"\d+\.\d % \(\d+\.\d %\)"
    held_out = rf"held-out windows \(one-speaker oracle\): DER {rate}, two speakers {rate}, frames exactly right {rate}"
    evaluated = [line.partition(": ")[::2] for line in lines if "held-out" in line]
    assert [at for at, _ in evaluated] == ["step 0 of 80 (0 %)", "step 40 of 80 (50 %)", "step 80 of 80 (100 %)"]
    assert all(re.fullmatch(held_out, text) for _, text in evaluated)
    assert "{" not in said and not [line for line in beside.splitlines() if " INFO " not in line]


@pytest.mark.training
def test_the_model_directory_is_complete(trained):
    model = trained[0] / "model"
    names = {file.name for file in model.iterdir()}
    assert {"config.json", "model.safetensors", "model.onnx", "preprocessor_config.json"} <= names
    assert {"modeling_fast_diarization.py", "pipeline_fast_diarization.py"} <= names
    assert "](curves.png)" in (model / "README.md").read_text()
    assert (model / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.training
def test_training_can_start_from_its_weights_with_another_encoder(trained):
    model = train.load_weights(str(trained[0] / "model"), {"encoder_type": "attention-gru"})
    assert (model.config.encoder_type, model.config.hidden_size) == ("attention-gru", 64)


@pytest.mark.training
def test_curves_of_runs_that_continue_one_another_go_on(trained, monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr("training.curves.plot_curves", lambda log, file: drawn.extend(log))
    monkeypatch.setattr(sys, "argv", ["curves", "--run", str(trained[0]), str(trained[0])])
    curves.main()
    steps = [entry["step"] for entry in drawn if "loss" in entry]
    assert steps == [20, 40, 60, 80, 100, 120, 140, 160]


@pytest.mark.training
def test_real_speech_improves_on_its_own_start(tmp_path):
    if not REAL.is_dir():
        pytest.skip("needs real speech in ../shared/speech")
    flags = (
        f"--dataset {REAL} --max_steps 200 --eval_on_start --eval_steps 100 --eval_windows 160 --output_dir {tmp_path}"
    )
    done = subprocess.run(
        ["accelerate", "launch", "train.py", *flags.split()], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    log = log_of(tmp_path)
    rates = [entry["eval_der"] for entry in log if "eval_der" in entry]
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert rates[-1] < rates[0]
    assert losses[-1] < losses[0]


@pytest.mark.training
def test_every_term_of_the_loss_is_logged_and_drawn(trained, tmp_path):
    """Their sum under the weights of the network is the loss, line by line, and each is a curve."""
    log = [entry for entry in log_of(trained[0]) if "loss" in entry]
    config = json.loads((trained[0] / "model" / "config.json").read_text())
    for entry in log:
        weighted = {name: config[f"{name}_loss_weight"] * entry[f"loss_{name}"] for name in ("affinity", "speaker")}
        assert entry["loss"] == pytest.approx(entry["loss_segmentation"] + sum(weighted.values()), abs=2e-3)
    figures = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.savefig", lambda figure, *_, **__: figures.append(figure))
        curves.plot_curves(log, tmp_path / "curves.png")
    lines = {line.get_label(): line.get_ydata() for line in figures[0].axes[0].lines}
    assert list(lines) == ["weighted sum", "affinity", "segmentation", "speaker"]
    assert list(lines["affinity"]) == [entry["loss_affinity"] for entry in log]


# Three speakers in a window


@pytest.fixture(scope="module")
def of_three(tmp_path_factory) -> tuple[Path, str]:
    """A few steps of a network that tells three speakers apart."""
    output = tmp_path_factory.mktemp("three")
    flags = f"--num_speakers 3 {SMALL_THREE} --max_steps 6 --eval_strategy steps --eval_steps 6 --save_steps 3"
    done = subprocess.run(
        [sys.executable, "train.py", *flags.split(), "--output_dir", output], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return output, done.stdout, done.stderr


SMALL_THREE = (
    "--hidden_size 16 --per_device_train_batch_size 16 --eval_windows 64 --warmup_steps 2 --logging_steps 3 "
    "--report_to none --dataloader_num_workers 0"
)


@pytest.mark.training
def test_three_speakers_are_trained_scored_and_described(of_three):
    output, said, *_ = of_three
    assert re.search(r"^\| three-speaker windows \|", said, re.M) and "more speaker" not in said
    model = output / "model"
    assert json.loads((model / "config.json").read_text())["num_speakers"] == 3
    last = [entry for entry in log_of(output) if "eval_der" in entry][-1]
    assert last["eval_three_speaker_der"] > 0 and last["eval_floor_three_speaker_der"] > 0.2
    card = (model / "README.md").read_text()
    assert "At most three people in one window" in card and "frames of 20 ms, 3)" in card
    assert "held-out speakers of demo, three speakers |" in card
    train_stream, held_out = train.open_streams(*parse("", SMALL_THREE.split()), None, 3)
    for stream in (train_stream, held_out["demo"]):
        assert stream.config.shares == usual_shares(3)
        assert next(iter(stream))["labels"].shape[2] == 3


@pytest.mark.training
def test_three_speakers_are_exported_and_diarized(of_three, tmp_path):
    model = of_three[0] / "model"
    session = onnxruntime.InferenceSession(model / "model.onnx", providers=["CPUExecutionProvider"])
    logits, embeddings = session.run(None, {"input_values": np.zeros((1, 16_000), np.float32)})
    assert logits.shape == (1, 50, 3) and embeddings.shape == (1, 3, 192)
    network, settings = open_network(str(model))
    held_out = train.open_streams(*parse("", SMALL_THREE.split()), None, 3)[1]["demo"]
    waveform = next(iter(held_out))["input_values"].ravel()
    segments = diarize(network, [waveform[: 20 * 16_000]], settings)
    assert all(segment.end > segment.start for segment in segments)


@pytest.mark.training
def test_a_run_of_another_number_of_speakers_is_refused_in_a_line_naming_both(monkeypatch, of_three, tmp_path):
    output = of_three[0]
    flags = ["--output_dir", output, *SMALL_THREE.split(), "--resume", "--max_steps", 9]
    with pytest.raises(
        SystemExit, match="^error: .*checkpoint-6 has num_speakers 3 and this run 2; resume with"
    ) as left:
        run(monkeypatch, *flags, "--num_speakers", 2)
    assert "\n" not in str(left.value)
    flags = ["--output_dir", tmp_path / "new", "--start_from", output / "model"]
    with pytest.raises(SystemExit, match="^error: --start_from .* has num_speakers 3 and this run 4; leave") as left:
        run(monkeypatch, *flags, "--num_speakers", 4)
    assert "\n" not in str(left.value)
    arguments, _ = parse("", ["--start_from", str(output / "model")])
    assert train.make_model(arguments, None).config.num_speakers == 3
    assert train.make_model(parse("", [])[0], output / "checkpoint-6").config.num_speakers == 3


# Flags, files and help


def share_of_two(stream) -> float:
    """How many of some hundred windows have two speakers."""
    labels = np.concatenate([batch["labels"] for batch in islice(stream, 5)])
    return (labels.any(axis=1).sum(axis=1) == 2).mean()


@pytest.mark.slow
def test_measured_shares_are_for_training_alone():
    asked = "--encoder_type lightweight-cnn --per_device_train_batch_size 64"
    streams = {
        measured: train.open_streams(*parse("", [*asked.split(), "--measured_shares", measured]), None)
        for measured in ("true", "false")
    }
    assert share_of_two(streams["true"][0]) < 0.4 < 0.5 < share_of_two(streams["false"][0])
    assert streams["true"][1]["demo"].config == streams["false"][1]["demo"].config


def test_help_teaches_this_projects_flags_first(monkeypatch, capsys):
    with pytest.raises(SystemExit) as left:
        run(monkeypatch, "--help")
    said = capsys.readouterr().out
    assert left.value.code == 0
    order = ["accelerate launch train.py --config", "data and model:", "\ntraining:", "\n  --max_steps"]
    assert sorted(order, key=said.index) == order
    assert "--adam_beta1" not in said and "--help_all" in said
    with pytest.raises(SystemExit):
        run(monkeypatch, "--help_all")
    assert "--adam_beta1" in capsys.readouterr().out


def test_a_file_of_flags_is_read_and_flags_override_it(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("dataset: librispeech\nlearning_rate: 1e-4\nmax_steps: 7\nresume: true\nnoise: null\nseed: 3\n")
    arguments, training = parse("", ["--config", str(file), "--max_steps", "9", "--output_dir", str(tmp_path)])
    assert (arguments.dataset, arguments.resume, arguments.noise) == (["librispeech"], True, None)
    assert (training.learning_rate, training.max_steps, training.seed) == (1e-4, 9, 3)


@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_configurations_of_the_repository_are_read(file):
    arguments, training = parse("", ["--config", str(file)])
    assert training.output_dir == f"runs/{file.stem}"
    assert training.per_device_train_batch_size == 32 and 1e-4 <= training.learning_rate <= 1e-3
    assert training.lr_scheduler_type == "cosine" and training.optim.startswith("adamw")


def test_what_resuming_relies_on_cannot_be_switched_off(tmp_path):
    flags = ["--ignore_data_skip", "False", "--remove_unused_columns", "True", "--output_dir", str(tmp_path)]
    _, training = parse("", flags)
    assert training.ignore_data_skip and training.save_safetensors and not training.remove_unused_columns


@pytest.mark.parametrize(
    ("capability", "flags", "launched_with", "chosen"),
    [
        ((7, 5), {}, "no", (True, False)),
        ((8, 0), {}, "no", (False, True)),
        ((8, 0), {"fp16": True}, "no", (True, False)),
        ((8, 0), {"use_cpu": True}, "no", (False, False)),
        ((7, 5), {}, "bf16", (False, False)),
    ],
)
def test_precision_is_what_the_gpu_is_good_at(monkeypatch, tmp_path, capability, flags, launched_with, chosen):
    """Chosen before transformers' own check, which tells accelerate."""
    monkeypatch.setattr(TrainingArguments, "__post_init__", lambda self: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launched_with)
    training = Training(output_dir=str(tmp_path), **flags)
    assert (training.fp16, training.bf16) == chosen


@pytest.fixture(scope="module")
def wrong(tmp_path_factory) -> Path:
    """Files and directories of which none is what a flag asks for."""
    directory = tmp_path_factory.mktemp("wrong")
    (directory / "empty").mkdir()
    (directory / "broken.yaml").write_text("dataset: demo\n\tmax_steps: 3\n")
    (directory / "list.yaml").write_text("- dataset\n")
    (directory / "unknown.yaml").write_text("max_step: 3\n")
    (directory / "value.yaml").write_text("max_steps: ten\n")
    (directory / "nameless").mkdir()
    write_directory(directory / "calls", talks(1))
    (directory / "texts").mkdir()
    (directory / "texts" / "text.wav").write_text("Dear recording,\n" * 100)
    pq.write_table(pa.table({"audio": [b"RIFF"], "text": ["hello"]}), directory / "nameless" / "train.parquet")
    ours = {"model_type": "fast-diarization"}
    for name, config in (("other/model", {"model_type": "wavlm"}), ("torn", ours), ("odd", ours | {"auto_map": None})):
        (directory / name).mkdir(parents=True)
        (directory / name / "config.json").write_text(json.dumps(config))
    (directory / "torn" / "model.safetensors").write_bytes(b"\x00" * 20)
    return directory


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--max_steps", "0"], "--max_steps must be at least 1, got 0"),
        (["--max_steps", "many"], "invalid int value: 'many'"),
        (["--drop_out", "0.1"], "unknown flag --drop_out; did you mean --dropout?"),
        (["--dropout=-0.1"], "--dropout must be a number from 0 to 0.99, got -0.1"),
        (["--encoder_type", "lstm"], "--encoder_type must be one of lightweight-cnn, attention-gru, got 'lstm'"),
        (["--num_speakers", "0"], "--num_speakers must be a whole number from 1 to 8, got 0"),
        (["--hidden_size", "100"], "--hidden_size must be a multiple of 8, got 100"),
        (["--window_seconds", "0"], "--window_seconds must be a multiple of 0.02 from 0.1 to 60, got 0.0"),
        (["--window_seconds", "1.005"], "--window_seconds must be a multiple of 0.02 from 0.1 to 60, got 1.005"),
        (["--long_window_seconds", "nan"], "--long_window_seconds must be a multiple of 0.02 from 0.1 to 60, got nan"),
        (["--gradient_accumulation_steps", "0"], "--gradient_accumulation_steps must be at least 1, got 0"),
        (["--load_best_model_at_end", "true"], "the newest checkpoints are kept"),
        (["--resume_from_checkpoint", "{tmp}"], "use --resume, which finds the newest checkpoint itself"),
        (["--hidden_size", "64", "--start_from", "{tmp}"], "--hidden_size is given by the weights of --start_from"),
        (["--dataloader_num_workers", "17"], "--dataloader_num_workers must be at most 16, got 17"),
        (["--dataloader_num_workers=-1"], "--dataloader_num_workers must be at least 0, got -1"),
        (["--lanes", "0"], "--lanes must be at least 1, got 0"),
        (["--lanes", "1", "--long_window_seconds", "4"], "--long_window_seconds is for every other lane"),
        (["--keep_embeddings", "1"], "--keep_embeddings holds those of --start_from; name its weights"),
        (["--freeze_embeddings", "true"], "--freeze_embeddings keeps those of --start_from; name its weights"),
        (
            ["--freeze_embeddings", "true", "--start_from", "{tmp}", "--keep_embeddings", "1"],
            "--keep_embeddings changes embeddings and --freeze_embeddings does not; leave one of them out",
        ),
        (["--keep_embeddings=-1"], "--keep_embeddings must be at least 0, got -1"),
        (["--tune_linking", "true"], "--tune_linking needs annotated recordings"),
        (["--dataset", "demo", "{tmp}/calls"], "has 1 recording; at least 2 are needed, 1 of them held out"),
        (["--dataset", "demo", "demo"], "--dataset has demo twice; name each corpus once"),
        (["--dataset", "demo", "ami", "--shares", "1"], "--shares has 1 numbers for 2 corpora; give one for each"),
        (["--dataset", "demo", "ami", "--shares", "0.5", "0.4"], r"sum to 1, got 0.5 0.4 \(sum 0.9\)"),
        (["--dataset", "demo", "ami", "--shares", "0", "1"], "--shares must be above 0"),
        (["--dataset", "demo", "ami", "--per_device_train_batch_size", "1"], "too small for 2 corpora"),
        (["--per_device_train_batch_size", "0"], "--per_device_train_batch_size must be at least 1, got 0"),
        (["--eval_windows", "0"], "--eval_windows must be at least 1, got 0"),
        (["--learning_rate", "0"], "--learning_rate must be above 0, got 0.0"),
        (["--lr_scheduler_type", "sine"], "sine is not a valid SchedulerType"),
        (["--config"], "--config: expected one argument"),
        (["--config", "{tmp}/none.yaml"], "none.yaml: No such file or directory; there are examples in configs/"),
        (["--config", "{tmp}/broken.yaml"], "broken.yaml is not valid YAML, see line 2"),
        (["--config", "{tmp}/list.yaml"], "must hold lines of `flag: value`, got list"),
        (["--config", "{tmp}/unknown.yaml"], "unknown key 'max_step'; did you mean max_steps?"),
        (["--config", "{tmp}/value.yaml"], "invalid int value: 'ten'"),
        (["--dataset", "{tmp}/nowhere"], "nowhere' is not a directory, a Hub id .* or one of: demo"),
        (["--dataset", "{tmp}/empty"], "is an empty directory; put Parquet files or speaker folders in it"),
        (["--dataset", "{tmp}/nameless"], "has no speaker column .*--speaker_column"),
        (["--noise", "{tmp}/nowhere"], "noise directory .*nowhere' does not exist"),
        (["--noise", "{tmp}/empty"], "noise directory .*empty' has no .flac, .wav or .ogg file"),
        (["--noise", "{tmp}/texts"], "noise .*texts/text.wav cannot be read (.*); remove or replace it"),
        (["--output_dir", "{tmp}/value.yaml"], "--output_dir .*value.yaml: File exists; name a directory"),
        (["--start_from", "{tmp}/empty"], "empty holds no model; give a model directory that train.py wrote"),
        (["--start_from", "{tmp}/other/model"], "holds a model of type 'wavlm'; give"),
        (["--start_from", "{tmp}/torn"], "torn cannot be loaded"),
        (["--start_from", "{tmp}/odd"], "odd cannot be loaded"),
        (["--teacher_voices", "{tmp}/none"], "none"),
    ],
)
def test_whatever_is_wrong_is_one_line(monkeypatch, wrong, flags, message):
    with pytest.raises(SystemExit) as left:
        run(monkeypatch, "--output_dir", wrong / "out", *(flag.format(tmp=wrong) for flag in flags))
    assert str(left.value).startswith("error: ") and "\n" not in str(left.value)
    assert re.search(message, str(left.value)), left.value


@pytest.mark.training
def test_what_is_given_with_start_from_counts_and_the_rest_is_that_of_the_weights(trained):
    flags = ["--start_from", str(trained[0] / "model"), "--dropout", "0", "--speaker_loss_weight", "0.7"]
    config = train.make_model(parse("", [*flags, "--window_seconds", "5"])[0], None).config
    assert (config.dropout, config.speaker_loss_weight, config.window_seconds) == (0, 0.7, 5)
    assert (config.hidden_size, config.affinity_loss_weight) == (64, 1.0)


@pytest.mark.training
def test_what_older_weights_left_does_not_describe_newer_ones(trained, tmp_path, monkeypatch):
    run_directory = tmp_path / "run"
    shutil.copytree(trained[0], run_directory)
    for name in ("evaluation.json", "latency.json", "model_int8.onnx"):
        (run_directory / "model" / name).write_text("[]")
    flags = "--resume --hidden_size 64 --window_seconds 2 --per_device_train_batch_size 16 --eval_windows 128"
    flags += " --learning_rate 3e-3"
    run(monkeypatch, "--output_dir", run_directory, *flags.split(), "--max_steps", 80)
    assert (run_directory / "model" / "model_int8.onnx").exists(), "of the same weights it stays"
    run(monkeypatch, "--output_dir", run_directory, *flags.split(), "--max_steps", 81)
    left = {file.name for file in (run_directory / "model").iterdir()}
    assert not left & {"evaluation.json", "latency.json", "model_int8.onnx"} and "model.onnx" in left


@pytest.mark.parametrize("flag", ["--hub_token ", "--hub_token=", "--hub-token ", "--push_to_hub_token "])
def test_a_token_is_in_no_command_and_in_no_checkpoint(flag, tmp_path, monkeypatch):
    if not hasattr(Training, flag.strip(" =-").replace("-", "_")):
        pytest.skip("transformers 5 has no such flag")
    words = f"{flag}hf_secret --output_dir {tmp_path} --seed 3".split()
    arguments, training = parse("", words)
    train.open_hub(training)
    assert "hf_secret" not in str(vars(training))
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    clock = SimpleNamespace(stateful_callbacks={"Clock": {"args": {"seconds": 1}}}, global_step=1)
    trainer = SimpleNamespace(state=clock, model=SimpleNamespace(num_parameters=lambda: 1))
    command = train.describe(arguments, training, trainer, None)["command"]
    assert "hf_secret" not in command and command.endswith("--seed 3")


def test_the_card_counts_all_windows_of_a_step_and_names_hub_data_only(tmp_path):
    clock = SimpleNamespace(stateful_callbacks={"Clock": {"args": {"seconds": 1}}}, global_step=1)
    trainer = SimpleNamespace(state=clock, model=SimpleNamespace(num_parameters=lambda: 1))
    flags = ["--per_device_train_batch_size", "8", "--gradient_accumulation_steps", "4", "--output_dir", str(tmp_path)]
    (tmp_path / "data").mkdir()
    for dataset, on_the_hub in (
        (str(tmp_path / "data"), None),
        ("user/name:config", "user/name"),
        ("librispeech", "openslr/librispeech_asr"),
        ("demo", None),
    ):
        described = train.describe(*parse("", [*flags, "--dataset", dataset]), trainer, None)
        assert (described["batch_size"], described["hub_dataset"]) == (32, on_the_hub)


@pytest.mark.training
def test_a_run_is_not_overwritten(monkeypatch, trained):
    with pytest.raises(SystemExit, match="already holds a run; add --resume to continue it, or choose another"):
        run(monkeypatch, "--output_dir", trained[0])


@pytest.mark.training
def test_a_checkpoint_of_another_configuration_is_refused(monkeypatch, trained):
    flags = ["--output_dir", trained[0], "--resume", "--hidden_size", 64, "--encoder_type", "attention-gru"]
    with pytest.raises(SystemExit, match="has encoder_type 'lightweight-cnn' and this run 'attention-gru'"):
        run(monkeypatch, *flags, "--window_seconds", 2, "--per_device_train_batch_size", 16)
