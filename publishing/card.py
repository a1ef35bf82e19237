"""The model card: `model_card.md` filled with what training, export, evaluation and benchmark left beside the model."""

import json
import re
from dataclasses import fields
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from common.markdown import table
from common.words import number_word
from evaluation.headlines import Headline, headlines, summary
from evaluation.tables import result_tables
from evaluation.window_scores import several_speaker_groups, window_table
from modeling.task_fast_diarization import Task

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = ROOT / "model_card.md"
NOT_MEASURED = "Not measured for this model."
METRICS = {
    "DER": "der",
    "exact frame accuracy": "accuracy",
    "number of speakers right": "accuracy",
    "equal error rate": "eer",
}
SPEECH = {
    "librispeech": ("LibriSpeech, read English", "CC BY 4.0"),
    "speechocean762": ("speechocean762, read English by Mandarin speakers, half of them children", "free for any use"),
    "vctk": ("VCTK, read English", "CC BY 4.0"),
    "cmu_arctic": ("CMU ARCTIC, read English", "free with attribution"),
    "hindi_speech_corpus": ("Hindi speech corpus of A. Yadavally et al.", "MIT"),
}
"""Corpora that a directory of Parquet files may name in a column `corpus`, and their licences."""


def write_card(model: Path) -> Path:
    """Render the card of a model directory into its `README.md`.

    `training.json`, `windows.json`, `evaluation.json`, `export.json` and `latency.json` are read where they are
    there; what is missing is called not measured.
    """
    config, training, windows, evaluation, export, latency = (
        _read(model / f"{name}.json") for name in ("config", "training", "windows", "evaluation", "export", "latency")
    )
    task = Task(**{field.name: config[field.name] for field in fields(Task) if field.name in config})
    name = training.get("name") or model.resolve().name
    dataset = training.get("dataset", "unknown")
    measured = headlines(evaluation, model.resolve().name) if evaluation else _of_training(windows, dataset)
    card = ModelCard.from_template(
        ModelCardData(
            language="en",
            license="apache-2.0",
            library_name="transformers",
            pipeline_tag="voice-activity-detection",
            tags=["speaker-diarization", "audio-frame-classification", "fast-diarization", "onnx"],
            datasets=_hub_datasets(training) or None,
            metrics=sorted({METRICS[headline.metric] for headline in measured}) or None,
            model_name=name,
            eval_results=[_eval_result(headline) for headline in measured] or None,
        ),
        template_path=str(TEMPLATE),
        name=name,
        place=name if "/" in name else _place(model),
        parameters=f"{training['parameters'] / 1e6:.2f} M" if training else "an unknown number of",
        encoder_type=config["encoder_type"],
        num_speakers=task.num_speakers,
        speakers=_people(task.num_speakers),
        simultaneous=_people(task.max_simultaneous),
        window_seconds=f"{task.window_seconds:g}",
        embedding_size=config["embedding_size"],
        synthetic=dataset == "demo",
        results=_results(evaluation, windows, training, model.resolve().name),
        speed=_speed(export, latency),
        sizes=_sizes(model),
        training=describe_training(training) if training else NOT_MEASURED,
        speech=_speech(training),
        curves=(model / "curves.png").is_file(),
        command=training.get("command", "accelerate launch train.py"),
    )
    card.save(model / "README.md")
    return model / "README.md"


def describe_training(training: dict) -> str:
    """Steps, hours, device and optimizer of a `training.json`, in words, and what came before that run."""
    described = (
        f"{training['steps']} steps of {training['batch_size']} windows of {training['window_seconds']:g} s, "
        f"{training['hours']:.1f} hours on {training['device']}, AdamW, peak learning rate "
        f"{training['learning_rate']:g}, {training['schedule']}. Energy and CO2 were not measured."
    )
    if training.get("averaged"):
        described += " The weights are the mean of those before and after these steps."
    return f"{described} Before that: {training['earlier']}" if training.get("earlier") else described


def _hub_datasets(training: dict) -> list[str]:
    """Ids of the Hub; models trained on one corpus at most have one."""
    return training.get("hub_datasets") or ([training["hub_dataset"]] if training.get("hub_dataset") else [])


def _people(number: int) -> str:
    return f"{number_word(number)} {'person' if number == 1 else 'people'}"


def _place(model: Path) -> str:
    """What a reader in the repository gives to load the model."""
    inside = model.resolve().is_relative_to(ROOT)
    return model.resolve().relative_to(ROOT).as_posix() if inside else f"path/to/{model.resolve().name}"


def _read(file: Path):
    return json.loads(file.read_text()) if file.is_file() else {}


def _of_training(windows: dict, dataset: str) -> list[Headline]:
    """The figures of the windows that training itself scores."""
    found = []
    for group in ("all_windows", *several_speaker_groups(windows)):
        for rate, metric in (("diarization_error_rate", "DER"), ("frame_accuracy", "exact frame accuracy")):
            if group in windows:
                on = f"simulated from {dataset}, unseen speakers, {group.replace('_', ' ')}"
                scores = windows[group]
                found.append(Headline(on, metric, 100 * scores[rate], 100 * scores[f"floor_{rate}"]))
    return found


def _eval_result(headline: Headline) -> EvalResult:
    floor = f" (floor {headline.floor:.1f})" if headline.floor is not None else ""
    return EvalResult(
        task_type="speaker-diarization",
        dataset_type="-".join(re.findall(r"\w+", headline.on)).lower(),
        dataset_name=headline.on,
        metric_type=METRICS[headline.metric],
        metric_name=f"{headline.metric} in percent{floor}",
        metric_value=round(headline.percent, 1),
    )


def _results(evaluation: list[dict], windows: dict, training: dict, system: str) -> str:
    if evaluation:
        details = (f"{result_tables(result)}\n\n```bash\n{result['command']}\n```" for result in evaluation)
        return "\n\n".join([summary(evaluation, [system]), *details])
    if windows and training:
        heading = f"{training['window_seconds']:g} s windows of speakers never trained on:"
        by_corpus = windows.get("corpora") or {"": windows}
        tables = (f"{corpus}\n\n{window_table(scores)}".strip() for corpus, scores in by_corpus.items())
        return "\n\n".join([heading, *tables])
    return NOT_MEASURED


def _speed(export: dict, latency: dict) -> str:
    lines = []
    if latency:
        times = [f"{latency[p]:.1f}" for p in ("p50_ms", "p95_ms", "p99_ms")]
        row = [latency["file"], latency["window_seconds"], *times]
        lines += [
            f"One window, waveform to logits, batch 1, {latency['provider']}, {latency['threads']} thread(s), "
            f"{latency['machine']}:",
            table(["file", "window (s)", "P50 (ms)", "P95 (ms)", "P99 (ms)"], [row]),
        ]
    if "peer_ratio" in latency:
        lines.append(f"segmentation-3.0, timed in turn with it, takes {latency['peer_ratio']:.1f} times as long.")
    if "int8" in export:
        lines.append(f"When it was exported, int8 changed the DER by {export['int8']['der_points']:+.2f} points.")
    return "\n\n".join(lines) or NOT_MEASURED


def _sizes(model: Path) -> str:
    files = [f for f in sorted(model.iterdir()) if f.suffix in (".safetensors", ".onnx")]
    rows = [[f"`{f.name}`", f"{f.stat().st_size / 1e6:.1f}"] for f in files]
    return table(["file", "MB"], rows) if rows else NOT_MEASURED


def _speech(training: dict) -> str:
    if not training:
        return NOT_MEASURED
    if not training.get("corpora"):
        return f"{training['dataset']} ({training['licence']}), streamed."
    rows = [[*SPEECH.get(name, (name, "unknown")), hours] for name, hours in training["corpora"].items()]
    return table(["corpus", "licence", "hours"], [[what, licence, f"{hours:.1f}"] for what, licence, hours in rows])
