"""Assemble the folder of a Space: the page, the files of this repository that it needs, and a model.

python space/assemble.py --model pretrained/lightweight-cnn --output /tmp/who-speaks-when
hf upload user/who-speaks-when /tmp/who-speaks-when . --repo-type space
"""

import argparse
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ("app.py", "requirements.txt", "README.md")
MODULES = (
    "diarization/__init__.py",
    "diarization/formats.py",
    "diarization/names.py",
    "diarization/backends.py",
    "diarization/onnx_graph.py",
    "common/__init__.py",
    "common/errors.py",
    "space/jobs.py",
    "space/worker.py",
    "modeling/__init__.py",
    *(
        f"modeling/{name}_fast_diarization.py"
        for name in (
            *("audio", "clustering", "container", "headers", "linking", "mixing", "path", "segments"),
            *("settings", "streaming", "task", "timeline", "tracklets", "tracks", "windows"),
        )
    ),
)
MODEL = ("model.onnx", "config.json")
MODEL_PLACE = "pretrained/lightweight-cnn"


def assemble(model: Path, output: Path) -> None:
    """
    Raises:
        ValueError: `model` lacks a file, or `output` already holds something else.
    """
    for name in MODEL:
        if not (model / name).is_file():
            raise ValueError(f"--model {model} has no {name}; run python export.py --model {model} first")
    if output.exists() and any(output.iterdir()) and not (output / "app.py").is_file():
        raise ValueError(f"--output {output} holds other files; name a new or empty directory")
    sources = {name: ROOT / "space" / name for name in PAGE}
    sources |= {name: ROOT / name for name in MODULES}
    sources |= {f"{MODEL_PLACE}/{name}": model / name for name in MODEL}
    for name, source in sources.items():
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, output / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / MODEL_PLACE, help="model directory written by export.py")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    arguments = parser.parse_args()
    try:
        assemble(arguments.model, arguments.output)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    print(f"{arguments.output}: try it with  cd {arguments.output} && python app.py")


if __name__ == "__main__":
    main()
