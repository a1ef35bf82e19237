"""The whole report of trained models: docs/RESULTS.md, docs/results.json, and what their cards show.

    python -m publishing.report pretrained/lightweight-cnn pretrained/attention-gru --dataset path/to/speech \\
        --noise path/to/noise --recordings path/to/recordings --peer segmentation-3.0.onnx --split test

Scores every model and the peer on the frozen sets, on real recordings and on voices, and the ONNX files beside each
model on the windows. Each result is also kept as `evaluation.json` in the directories of its models, from which
their cards are rendered; `python -m evaluation` gives the same figures one by one.
"""

import argparse
import json
import shutil
from pathlib import Path

import jinja2

from common.markdown import table
from data.corpora import CorpusError
from diarization.backends import ModelError
from evaluation.headlines import summary
from evaluation.results import Options, evaluate
from evaluation.sets import read_definition
from evaluation.systems import Ours, Segmentation3, model_name
from evaluation.tables import result_tables
from publishing.card import describe_training, write_card

ROOM = Path(__file__).parent
SETS = ROOM.parent / "evaluation" / "sets"
WINDOWS, RECORDINGS = SETS / "windows.json", SETS / "recordings.json"
PLACES = {"dataset": "path/to/speech", "noise": "path/to/noise", "recordings": "path/to/recordings"}
NOT_MEASURED = "Not measured."


def measure(arguments: argparse.Namespace) -> list[dict]:
    """All results, each with the command that gives it again."""
    models = [Ours(str(model), model.name) for model in arguments.models]
    exported = [Ours(str(f), model_name(str(f))) for model in arguments.models for f in sorted(model.glob("*.onnx"))]
    peer = [Segmentation3(arguments.peer)] if arguments.peer else []
    options = {"dataset": arguments.dataset, "noise": arguments.noise, "split": arguments.split}
    first = next(iter(read_definition(WINDOWS)["conditions"]))
    wanted = [
        (str(WINDOWS), [*models, *peer], options),
        (str(WINDOWS), [*models, *exported], options | {"part": first}) if exported else None,
        (str(RECORDINGS), [*models, *peer], options),
        (arguments.recordings, [*models, *peer], {"counts": ("unknown", "known")}) if arguments.recordings else None,
        ("voices", models, options | {"noise": None}),
    ]
    results = []
    for source, systems, chosen in filter(None, wanted):
        print(f"scoring {', '.join(s.name for s in systems)} on {source}", flush=True)
        result = evaluate(source, systems, Options(**chosen))
        result["source"] = str(result["source"]).removeprefix(f"{ROOM.parent}/")
        if source == arguments.recordings:
            result |= {"source": PLACES["recordings"], "title": "Real recordings"}
        elif "part" in chosen:
            result |= {"title": f"ONNX beside torch: {result['title']}", "in_summary": False}
        results.append(result | {"command": command(result["source"], chosen)})
    return results


def command(source: str, options: dict) -> str:
    """The command that gives a result again, MODEL standing for the model and places for what is not here."""
    words = ["python -m evaluation", source.removeprefix(f"{ROOM.parent}/")]
    for flag in ("dataset", "noise"):
        words += [f"--{flag}", PLACES[flag]] if options.get(flag) else []
    words += ["--split", options["split"]] if "split" in options else []
    words += ["--part", f'"{options["part"]}"'] if "part" in options else []
    words += ["--num_speakers", *options["counts"]] if "counts" in options else []
    return " ".join([*words, "--model", "MODEL"])


def of_model(results: list[dict], name: str) -> list[dict]:
    """The same results with one model alone, its ONNX files included."""
    kept = []
    for result in results:
        parts = result["parts"] if result["kind"] != "voices" else {"": result["parts"]}
        parts = {
            part: {system: s for system, s in systems.items() if system.split("/")[0] == name}
            for part, systems in parts.items()
        }
        kept.append(result | {"parts": parts if result["kind"] != "voices" else parts[""]})
    return [result for result in kept if any(result["parts"].values())]


def write_report(directory: Path, results: list[dict], models: list[Path], ablation: dict, split: str) -> None:
    """RESULTS.md, results.json and the learning curves in `directory`."""
    names = [model.name for model in models]
    peers = {s for r in results if r["kind"] == "windows" for s in next(iter(r["parts"].values()))}
    peers = sorted(name for name in peers if name not in names and "/" not in name)
    training = []
    for model in models:
        described = _read(model / "training.json")
        training.append(f"**{model.name}**: {describe_training(described) if described else NOT_MEASURED}")
        if described.get("command"):
            training.append(f"```bash\n{described['command']}\n```")
        if (model / "curves.png").is_file():
            (directory / "pictures").mkdir(parents=True, exist_ok=True)
            shutil.copy(model / "curves.png", directory / f"pictures/curves-{model.name}.png")
            training.append(f"![Loss and scores of unseen speakers by step](pictures/curves-{model.name}.png)")
    used = "Nothing was trained on speakers of the test split."
    used_for = {"test": used, "validation": "Validation speakers, on which settings were chosen: not a final score."}
    text = jinja2.Template((ROOM / "results_template.md").read_text(), keep_trailing_newline=True).render(
        split_words=used_for.get(split, ""),
        command=f"python -m publishing.report {' '.join(f'pretrained/{name}' for name in names)} --dataset "
        f"{PLACES['dataset']} --noise {PLACES['noise']} --recordings {PLACES['recordings']} --peer "
        f"segmentation-3.0.onnx --split {split}{' --ablation runs/ablation/ablation.json' if ablation else ''}",
        summary=summary(results, [*names, *peers]),
        details="\n\n".join(f"{result_tables(result)}\n\n```bash\n{result['command']}\n```" for result in results),
        training="\n\n".join(training),
        ablation=ablation_table(ablation) if ablation else NOT_MEASURED,
        failed=(ROOM.parent / "docs" / "NEGATIVE_RESULTS.md").read_text().strip(),
    )
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "RESULTS.md").write_text(text)
    whole = {"split": split, "results": results, "ablation": ablation}
    (directory / "results.json").write_text(json.dumps(whole, indent=1) + "\n")


def ablation_table(ablation: dict) -> str:
    """Of what `python -m publishing.ablation` wrote: each variant's figures and what it lost."""
    variants = ablation["variants"]
    rates = [
        ("all_windows", "DER"),
        ("two_speaker_windows", "DER, two speakers"),
        ("overlapped_frames", "DER, overlap"),
    ]
    rows = []
    for name, variant in variants.items():
        groups = variant["groups"]
        cells = [f"{100 * groups[g]['diarization_error_rate']:.1f}" for g, _ in rates]
        rows.append([name, *cells, f"{100 * groups['all_windows']['frame_accuracy']:.1f}", f"`{variant['flags']}`"])
    floor = next(iter(variants.values()))["groups"]
    cells = [f"{100 * floor[g]['floor_diarization_error_rate']:.1f}" for g, _ in rates]
    rows.append(["floor", *cells, f"{100 * floor['all_windows']['floor_frame_accuracy']:.1f}", ""])
    header = ["%", *(heading for _, heading in rates), "frame accuracy", "flags"]
    return f"{ablation['steps']} steps each, {ablation['set']}.\n\n{table(header, rows)}"


def _read(file: Path | None) -> dict:
    return json.loads(file.read_text()) if file and file.is_file() else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path, metavar="DIR", help="directories of trained models")
    parser.add_argument("--dataset", required=True, help="the corpus the sets were frozen on")
    parser.add_argument("--noise", help="directory of background recordings the sets were frozen with")
    parser.add_argument("--split", default="validation", help="validation (default), or test: once, at the end")
    parser.add_argument("--recordings", metavar="DIR", help="real recordings with RTTM files")
    parser.add_argument("--peer", metavar="ONNX", help="pyannote segmentation-3.0")
    parser.add_argument("--ablation", type=Path, metavar="JSON", help="what python -m publishing.ablation wrote")
    parser.add_argument("--output", type=Path, default=Path("docs"), help="default: docs")
    arguments = parser.parse_args()
    try:
        results = measure(arguments)
    except (CorpusError, ModelError, ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    write_report(arguments.output, results, arguments.models, _read(arguments.ablation), arguments.split)
    for model in arguments.models:
        (model / "evaluation.json").write_text(json.dumps(of_model(results, model.name), indent=1) + "\n")
        print(write_card(model))
    print(arguments.output / "RESULTS.md")


if __name__ == "__main__":
    main()
