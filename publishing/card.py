"""The model card: `model_card.md` filled with what training, export, evaluation and benchmark left beside the model.

    python -m publishing.card runs/demo/model       # write README.md of a model directory again

`training.json`, `windows.json`, `evaluation.json`, `export.json` and `latency.json` are read where they exist; what is
missing is called not measured. Scores are in the card's metadata (`model-index`) only where the Hub has the data set.
Its newer files, `.eval_results/*.yaml`, are for data sets registered there as benchmarks, which none of these is.
"""

import json
import re
from dataclasses import fields
from pathlib import Path

from common.program import end_quietly
from publishing.flags import of_card

if __name__ == "__main__":
    end_quietly()
    of_card(__doc__)  # --help and wrong usage, before imports that take seconds

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from common.addresses import MODELS, REPOSITORY, SPACE
from common.markdown import table
from common.version import __version__
from common.words import number_word
from modeling.task_fast_diarization import Task
from publishing import results_tables as tables

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = ROOT / "model_card.md"
NOT_MEASURED = "Not measured for this model."


SPEECH = {
    "librispeech": ("LibriSpeech, read English", "CC BY 4.0", "en", "openslr/librispeech_asr"),
    "speechocean762": ("speechocean762, English of Mandarin speakers, half children", "free for any use", "en", None),
    "vctk": ("VCTK, read English", "CC BY 4.0", "en", None),
    "cmu_arctic": ("CMU ARCTIC, read English", "free with attribution", "en", None),
    "hindi_speech_corpus": ("Hindi speech corpus of A. Yadavally et al.", "MIT", "hi", None),
    "malayalam_msc": ("MSC, Malayalam read into own phones and laptops", "CC BY-SA 4.0", "ml", None),
    "alphanumeric_duke": ("alphanumeric speech, accented English, own devices", "MIT", "en", None),
    "arabic_speech_commands": ("Arabic speech commands, put together with pauses", "CC BY 4.0", "ar", None),
    "free_spoken_digits": ("Free Spoken Digit Dataset", "CC BY-SA 4.0", "en", None),
    "harpervalleybank": ("HarperValleyBank, real calls cut out as they are", "CC BY 4.0", "en", None),
    "ami": ("AMI, real meetings cut out as they are", "CC BY 4.0", "en", None),
}
"""Name, licence, language and Hub id of the corpora that Parquet files may name in their column `corpus`."""
HUB_DATASETS = {"ami_dev00": "diarizers-community/ami"}
"""The data sets of the Hub that scored recordings are part of."""
FLAG_WORDS = {
    "--teacher_voices": "embeddings distilled from CAM++",
    "--bf16": "bfloat16",
    "--freeze_norms": "frozen batch normalisation",
    "--measured_shares": "windows in natural proportions",
}
"""What flags of train.py say in the table of training."""


def write_card(model: Path) -> Path:
    """Render the card of a model directory into its `README.md`."""
    config, training, windows, evaluation, export, latency = (
        read_json(model / f"{name}.json")
        for name in ("config", "training", "windows", "evaluation", "export", "latency")
    )
    task = Task(**{field.name: config[field.name] for field in fields(Task) if field.name in config})
    name = training.get("name") or model.resolve().name
    rates = tables.key_rates(evaluation, model.resolve().name) if evaluation else _of_training(windows, training)
    place = name if "/" in name else MODELS.get(name) or _place(model)
    card = ModelCard.from_template(
        _metadata(name, training, windows, evaluation, model.resolve().name),
        template_path=str(TEMPLATE),
        name=name,
        version=training.get("version", __version__),
        place=place,
        repository=f"[repository]({REPOSITORY})" if REPOSITORY else "repository",
        address=REPOSITORY,
        space=SPACE,
        parameters=f"{training['parameters'] / 1e6:.2f} M" if training else "an unknown number of",
        encoder_type=config["encoder_type"],
        num_speakers=task.num_speakers,
        speakers=f"{number_word(task.num_speakers)} {'person' if task.num_speakers == 1 else 'people'}",
        window_seconds=f"{task.window_seconds:g}",
        embedding_size=config["embedding_size"],
        synthetic=training.get("dataset") == "demo",
        picture=(model / "timeline.png").is_file(),
        results=tables.key_table(rates) if rates else NOT_MEASURED,
        details="evaluation.json" if evaluation else "windows.json" if windows else None,
        before_change=tables.scored_before_change(evaluation or []) and tables.BEFORE_CHANGE,
        speed=_speed(export, latency),
        sizes=_sizes(model),
        stages=_stages_table(training),
        settings=_settings(training),
        speech=_speech(training),
        curves=(model / "curves.png").is_file(),
        command=_command(training, place),
    )
    file = model / "README.md"
    file.write_text(re.sub(r"\n{3,}", "\n\n", str(card)).rstrip() + "\n")
    return file


def read_json(file: Path):
    """What a JSON file holds, or an empty dictionary where there is none."""
    return json.loads(file.read_text()) if file.is_file() else {}


def stages(training: dict) -> list[dict]:
    """The runs that led to a model, first to last: `steps`, `hours`, `learning_rate` (or `None`), and `what`."""
    words = [text for flag, text in FLAG_WORDS.items() if f"{flag} " in f"{training['command']} "]
    run = {name: training[name] for name in ("steps", "hours", "learning_rate")}
    return [*training.get("earlier", []), run | {"what": "; ".join(words)}]


def _metadata(name: str, training: dict, windows: dict, evaluation: list[dict], system: str) -> ModelCardData:
    corpora = [SPEECH[corpus] for corpus in training.get("corpora") or {} if corpus in SPEECH]
    datasets = [*training.get("hub_datasets", [training.get("hub_dataset")]), *(hub for *_, hub in corpora)]
    index = _of_recordings(evaluation, system) if evaluation else _of_hub_dataset(windows, training)
    return ModelCardData(
        language=sorted({language for _, _, language, _ in corpora}) or None,
        license="apache-2.0",
        library_name="transformers",
        pipeline_tag="audio-classification",
        tags=["speaker-diarization", "fast-diarization", "onnx"],
        datasets=[dataset for dataset in datasets if dataset] or None,
        model_name=name,
        eval_results=index or None,
    )


def _of_recordings(evaluation: list[dict], system: str) -> list[EvalResult]:
    """Entries of the index: only what was scored on data sets of the Hub, for others have no identifier there."""
    found = []
    for result in tables.real(evaluation):
        for scores in result["parts"].values():
            whole = scores.get(system, {}).get("whole", {})
            scored = whole.get("unknown", {}).get("recordings", {})
            for name in (name for name in HUB_DATASETS if name in scored):
                rate = tables.of_whole(tables.RECORDINGS.get(name, name), whole, name)
                found.append(_entry(HUB_DATASETS[name], rate))
    return found


def _of_hub_dataset(windows: dict, training: dict) -> list[EvalResult]:
    dataset = training.get("hub_dataset")
    if not (dataset and "all_windows" in windows):
        return []
    on, scores = f"{dataset}, 3 s conversations simulated of held-out speakers", windows["all_windows"]
    return [_entry(dataset, tables.KeyRate(on, scores[tables.DER], scores[f"floor_{tables.DER}"]))]


def _entry(dataset: str, rate: tables.KeyRate) -> EvalResult:
    return EvalResult(
        task_type="audio-classification",
        task_name="speaker diarization",
        dataset_type=dataset,
        dataset_name=rate.on,
        metric_type="der",
        metric_name=f"DER in percent (one-speaker oracle: {100 * rate.floor:.1f})",
        metric_value=round(100 * rate.rate, 1),
    )


def _place(model: Path) -> str:
    """What a reader in the repository gives to load the model."""
    inside = model.resolve().is_relative_to(ROOT)
    return model.resolve().relative_to(ROOT).as_posix() if inside else f"path/to/{model.resolve().name}"


def _of_training(windows: dict, training: dict) -> list[tables.KeyRate]:
    """The rates of the windows that training itself scores, by corpus if there were several."""
    origin = "held out of" if "corpora" in windows else "simulated from held-out speakers of"
    words = f"{training.get('window_seconds', 3.0):g} s windows {origin}"
    by_corpus = windows.get("corpora") or {training.get("dataset", "unknown"): windows}
    return [rate for corpus, groups in by_corpus.items() for rate in tables.of_windows(groups, f"{words} {corpus}")]


def _speed(export: dict, latency: dict) -> str:
    lines = []
    if latency:
        times = ", ".join(f"P{p} {latency[f'p{p}_ms']:.1f} ms" for p in (50, 95, 99))
        lines.append(
            f"One {latency['window_seconds']:g} s window through `{latency['file']}`, batch 1, {latency['provider']}, "
            f"{number_word(latency['threads'])} thread{'s' * (latency['threads'] != 1)}, {latency['machine']}: {times}."
        )
    if "peer_ratio" in latency:
        lines.append(f"pyannote's segmentation-3.0 takes {latency['peer_ratio']:.1f} times as long in the same run.")
    if "int8" in export:
        lines.append(f"int8 changes the DER by {export['int8']['der_points']:+.2f} points.")
    return " ".join(lines) or NOT_MEASURED


def _sizes(model: Path) -> str:
    files = [f for f in sorted(model.iterdir()) if f.suffix in (".safetensors", ".onnx")]
    return ", ".join(f"`{f.name}` {f.stat().st_size / 1e6:.1f} MB" for f in files)


def _stages_table(training: dict) -> str:
    """A row for each run, if there was more than one."""
    runs = stages(training) if training else []
    rows = [
        [run["what"], _number(run["steps"], ","), _number(run["hours"], ".1f"), _number(run["learning_rate"], "g")]
        for run in runs
    ]
    return table(["run", "steps", "hours", "peak learning rate"], rows) if len(runs) > 1 else ""


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


def _settings(training: dict) -> str:
    if not training:
        return ""
    runs = stages(training)
    steps, hours = (sum(run[name] or 0 for run in runs) for name in ("steps", "hours"))
    described = (
        f"{steps:,} steps of {training['batch_size']} windows of {training['window_seconds']:g} s in {hours:.1f} hours "
        f"on {training['device']}, AdamW, {training['schedule']} schedule."
    )
    if len(runs) == 1:
        described += f" Peak learning rate {training['learning_rate']:g}."
    if training.get("averaged"):
        described += " The published weights are the mean of those before and after the last run."
    return f"{described} Energy and CO2 were not measured."


def _speech(training: dict) -> str:
    if not training:
        return NOT_MEASURED
    if not training.get("corpora"):
        return f"Trained on {training['dataset']} ({training['licence']}), streamed."
    rows = [
        [*SPEECH.get(name, (name, "unknown"))[:2], speech["speakers"], f"{60 * speech['hours']:.0f}"]
        for name, speech in training["corpora"].items()
    ]
    return table(["corpus", "licence", "speakers", "minutes"], rows)


def _command(training: dict, place: str) -> str:
    """How to train such a model, by a command anybody can run: not one that starts from weights nobody has."""
    command = training.get("command", "accelerate launch train.py")
    if training.get("earlier") or "--start_from" in command:
        command = f"accelerate launch train.py --start_from {place} --dataset path/to/speech --output_dir runs/mine"
        return f"To continue training: `{command}`"
    return f"Trained by: `{command}`"


def main() -> None:
    for model in of_card(__doc__).models:
        if not (model / "config.json").is_file():
            raise SystemExit(f"error: {model} has no config.json; give a model directory, such as runs/demo/model")
        print(write_card(model))


if __name__ == "__main__":
    main()
