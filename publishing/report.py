"""Score trained models and write docs/RESULTS.md, docs/results.json, README's table and the models' cards.

    python -m publishing.report pretrained/lightweight-cnn pretrained/attention-gru --dataset path/to/speech \\
        --noise path/to/noise --clips path/to/clips --recordings path/to/recordings --peer segmentation-3.0.onnx \\
        --split test
    python -m publishing.report --from docs/results.json pretrained/*      # the pages again, without scoring

Scores every model and the peer on the frozen sets, on real recordings and, by their embeddings, on pairs of speakers;
the ONNX files beside each model are scored on the windows. Each model directory also gets its own results as
`evaluation.json`, from which its card is rendered. `python -m evaluation` gives the same figures one by one.
"""

import argparse
import json
import re
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from common.program import end_quietly
from publishing.flags import of_report

if __name__ == "__main__":
    end_quietly()
    of_report(__doc__)  # --help and wrong usage, before imports that take seconds

import jinja2

from common.output import OutputError, make_directory
from data.corpora import CorpusError
from diarization.backends import ModelError
from evaluation.results import Options, evaluate
from evaluation.sets import read_definition
from evaluation.systems import Ours, Segmentation3, model_name
from publishing import results_tables as tables
from publishing.card import read_json, write_card

ROOT = Path(__file__).parent.parent
TEMPLATE = Path(__file__).parent / "results_template.md"
DOCS = ROOT / "docs"
SETS = ROOT / "evaluation" / "sets"
WINDOWS, RECORDINGS, SOUNDS = SETS / "windows.json", SETS / "recordings.json", SETS / "sounds.json"
PLACES = {
    "dataset": "path/to/speech",
    "noise": "path/to/noise",
    "clips": "path/to/clips",
    "recordings": "path/to/recordings",
}
SPLIT_WORDS = {
    "test": "Nothing was trained on speakers of the test split.",
    "validation": "These are validation speakers, on whom settings were chosen: not a final score.",
}
README_TABLE = re.compile(r"(<!-- results: begin -->\n).*?(<!-- results: end -->)", re.S)


def measure(arguments: argparse.Namespace) -> list[dict]:
    """All results, each with the command that reproduces it and the date it was scored."""
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
        (str(SOUNDS), models, {"noise": arguments.clips}) if arguments.clips else None,
        ("voices", models, options | {"noise": None}),
    ]
    results = []
    for source, systems, chosen in filter(None, wanted):
        print(f"scoring {', '.join(s.name for s in systems)} on {source}", flush=True)
        result = evaluate(source, systems, Options(**chosen))
        result |= {"source": str(result["source"]).removeprefix(f"{ROOT}/"), "scored": f"{datetime.now(UTC):%F}"}
        if source == arguments.recordings:
            result |= {"source": PLACES["recordings"], "title": "Real recordings"}
        elif "part" in chosen:
            result |= {"title": f"ONNX beside torch: {result['title']}", "in_summary": False}
        results.append(result | {"command": command(result["source"], chosen)})
    return results


def command(source: str, options: dict) -> str:
    """The command that reproduces a result; MODEL stands for the model, `path/to/...` for directories of data."""
    words = ["python -m evaluation", source.removeprefix(f"{ROOT}/")]
    places = PLACES | {"noise": PLACES["clips"]} if source.endswith(SOUNDS.name) else PLACES
    for flag in ("dataset", "noise"):
        words += [f"--{flag}", places[flag]] if options.get(flag) else []
    words += ["--split", options["split"]] if "split" in options else []
    words += ["--part", f'"{options["part"]}"'] if "part" in options else []
    words += ["--num_speakers", *options["counts"]] if "counts" in options else []
    return " ".join([*words, "--model", "MODEL"])


def of_model(results: Sequence[dict], name: str) -> list[dict]:
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


def write_report(directory: Path, report: dict) -> None:
    """RESULTS.md and results.json in `directory`.

    Args:
        report: `results` of `measure`, the `split` they were scored on, and the `ablation` that
            `python -m publishing.ablation` wrote, or an empty dictionary.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "RESULTS.md").write_text(render(directory, **report))
    (directory / "results.json").write_text(json.dumps(report, indent=1) + "\n")


def render(directory: Path, results: Sequence[dict], split: str, ablation: dict) -> str:
    """The text of RESULTS.md; learning curves are shown where `directory` has their pictures."""
    names = tables.systems_of(results)
    models = [name for name in names if name != "segmentation-3.0"]
    real, simulated = tables.real(results), tables.simulated(results)
    directories = " ".join(f"pretrained/{name}" for name in models)
    return jinja2.Template(TEMPLATE.read_text(), keep_trailing_newline=True, trim_blocks=True).render(
        split=split,
        split_words=SPLIT_WORDS.get(split, ""),
        real=real and tables.recordings_table(real),
        real_parts=real and tables.parts_table(real),
        peers=peers(directory),
        simulated=simulated and tables.simulated_table(simulated),
        before_change=tables.scored_before_change(results) and tables.BEFORE_CHANGE,
        windows=tables.windows_table(results),
        conditions=tables.conditions_table(results),
        formats=tables.formats_table(results),
        sounds=tables.sounds_tables(results),
        embeddings=tables.embeddings_table(results),
        ablation=ablation,
        ablation_table=ablation and tables.ablation_table(ablation),
        models=models,
        curves=[name for name in models if (directory / f"pictures/curves-{name}.png").is_file()],
        directories=directories,
        command=f"python -m publishing.report {directories} --dataset {PLACES['dataset']} --noise {PLACES['noise']} "
        f"--clips {PLACES['clips']} --recordings {PLACES['recordings']} --peer segmentation-3.0.onnx --split {split}"
        f"{' --ablation runs/ablation/ablation.json' if ablation else ''}",
        commands="\n".join(result["command"] for result in results),
    )


def peers(directory: Path) -> dict | None:
    """What RESULTS.md says of `python bench.py peers`, where its result is kept with its picture."""
    result = read_json(directory / "performance/peers.json")
    if not result or not (directory / "pictures/peers.png").is_file():
        return None
    recordings = next(iter(result["systems"].values()))["unknown"]["recordings"]
    return {"recordings": len(recordings), "minutes": f"{result['minutes']:.0f}", "table": tables.peers_table(result)}


def read_report(file: Path) -> dict:
    """What `write_report` kept as results.json.

    Raises:
        ValueError: the file is of another kind.
    """
    report = json.loads(file.read_text())
    if not isinstance(report, dict) or report.keys() != {"split", "results", "ablation"}:
        raise ValueError(f"--from {file} does not hold split, results and ablation; give docs/results.json")
    return report


def write_readme_table(readme: Path, results: Sequence[dict], models: Sequence[Path]) -> None:
    """Put the key rates, and the latencies kept in the model directories, between the marks of README."""
    table = tables.overview(results)
    kept = {model.name: read_json(model / "latency.json") for model in models}
    times = {name: [f"{latency[f'p{p}_ms']:.1f}" for p in (50, 99)] for name, latency in kept.items() if latency}
    for latency in kept.values():
        if "peer_p50_ms" in latency:
            times.setdefault("segmentation-3.0", [f"{latency[f'peer_p{p}_ms']:.1f}" for p in (50, 99)])
    if times:
        cells = (" / ".join(times.get(name, ["-"])) for name in tables.systems_of(results))
        table += "\n| " + " | ".join(["milliseconds per 3 s window, one CPU thread, P50 / P99", "", *cells]) + " |"
    if tables.scored_before_change(results):
        table += f"\n\nSimulated recordings: {tables.BEFORE_CHANGE}."
    readme.write_text(README_TABLE.sub(lambda found: f"{found[1]}{table}\n{found[2]}", readme.read_text()))


def main() -> None:
    arguments = of_report(__doc__)
    try:
        make_directory(arguments.output, "--output")
        if arguments.kept:
            report = read_report(arguments.kept)
        else:
            ablation = json.loads(arguments.ablation.read_text()) if arguments.ablation else {}
            report = {"split": arguments.split, "results": measure(arguments), "ablation": ablation}
    except (CorpusError, ModelError, OutputError, ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    for model in arguments.models:
        (model / "evaluation.json").write_text(json.dumps(of_model(report["results"], model.name), indent=1) + "\n")
        if (model / "curves.png").is_file():
            (arguments.output / "pictures").mkdir(exist_ok=True)
            shutil.copy(model / "curves.png", arguments.output / f"pictures/curves-{model.name}.png")
        print(write_card(model))
    write_report(arguments.output, report)
    print(arguments.output / "RESULTS.md")
    if arguments.output.resolve() == DOCS.resolve():
        write_readme_table(ROOT / "README.md", report["results"], arguments.models)


if __name__ == "__main__":
    main()
