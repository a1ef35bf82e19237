"""The model card: `model_card.md` filled with what training, export and benchmark left beside the model."""

import json
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from evaluation.markdown import table
from evaluation.windows import to_markdown

TEMPLATE = Path(__file__).parent.parent / "model_card.md"
NOT_MEASURED = "Not measured for this model."
LIMITS = (
    "At most two people at once in a window. Not measured or known to be weak: children, far-field microphones, "
    "singing and music, more than two people talking at once."
)


def write_card(model: Path) -> Path:
    """Render the card of a model directory into its `README.md`.

    `training.json`, `windows.json`, `export.json` and `latency.json` are read where they are there; what is missing
    is called not measured.
    """
    config, training, windows = (_read(model / f) for f in ("config.json", "training.json", "windows.json"))
    export, latency = _read(model / "export.json"), _read(model / "latency.json")
    name = training.get("name", model.resolve().parent.name)
    card = ModelCard.from_template(
        ModelCardData(
            language="en",
            license="apache-2.0",
            library_name="transformers",
            pipeline_tag="voice-activity-detection",
            tags=["speaker-diarization", "audio-frame-classification", "fast-diarization", "onnx"],
            datasets=[training["dataset"]] if "/" in training.get("dataset", "") else None,
            model_name=name,
            eval_results=_results(windows, training.get("dataset", "unknown")) or None,
        ),
        template_path=str(TEMPLATE),
        name=name,
        parameters=f"{training['parameters'] / 1e6:.2f} M" if training else "an unknown number of",
        encoder_type=config["encoder_type"],
        num_speakers=config["num_speakers"],
        synthetic=training.get("dataset") == "demo",
        limits=LIMITS,
        results=f"{training['window_seconds']:g} s windows of speakers never trained on:\n\n{to_markdown(windows)}"
        if windows and training
        else NOT_MEASURED,
        speed=_speed(export, latency),
        training=_training(training),
        curves=(model / "curves.png").is_file(),
        command=training.get("command", "accelerate launch train.py"),
    )
    card.save(model / "README.md")
    return model / "README.md"


def _read(file: Path) -> dict:
    return json.loads(file.read_text()) if file.is_file() else {}


def _results(windows: dict, dataset: str) -> list[EvalResult]:
    results = []
    for group in ("all_windows", "two_speaker_windows"):
        for rate, name in (("diarization_error_rate", "DER"), ("frame_accuracy", "exact frame accuracy")):
            if group in windows:
                floor = 100 * windows[group][f"floor_{rate}"]
                results.append(
                    EvalResult(
                        task_type="speaker-diarization",
                        dataset_type=dataset,
                        dataset_config=group,
                        dataset_name=f"simulated from {dataset}, unseen speakers, {group.replace('_', ' ')}",
                        metric_type="der" if rate.startswith("d") else "accuracy",
                        metric_name=f"{name} in percent (floor {floor:.1f})",
                        metric_value=round(100 * windows[group][rate], 1),
                    )
                )
    return results


def _speed(export: dict, latency: dict) -> str:
    lines = []
    if latency:
        lines += [
            f"One window, waveform to logits, batch 1, {latency['provider']}, {latency['threads']} thread(s), "
            f"{latency['machine']}:\n",
            table(
                ["window (s)", "P50 (ms)", "P95 (ms)", "P99 (ms)"],
                [[latency["window_seconds"], *(f"{latency[p]:.1f}" for p in ("p50_ms", "p95_ms", "p99_ms"))]],
            ),
        ]
    if "int8" in export:
        lines.append(f"\nint8 changes the DER of these windows by {export['int8']['der_points']:+.2f} points.")
    return "\n".join(lines) or NOT_MEASURED


def _training(training: dict) -> str:
    if not training:
        return NOT_MEASURED
    return (
        f"{training['steps']} steps of {training['batch_size']} windows of {training['window_seconds']:g} s, "
        f"{training['hours']:.1f} hours on {training['device']}, AdamW, peak learning rate "
        f"{training['learning_rate']:g}, {training['schedule']}. Speech: {training['dataset']} "
        f"({training['licence']}), streamed. Energy and CO2: not measured."
    )
