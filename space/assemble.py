"""Assemble the folder of a Space: the page, the files of this repository that it needs, and a model.

python space/assemble.py --model pretrained/lightweight-cnn --output /tmp/who-speaks-when
hf upload user/who-speaks-when /tmp/who-speaks-when . --repo-type space
"""

import argparse
import ast
import shutil
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ("app.py", "requirements.txt", "README.md")
ASSETS = ("space/player.js", "space/player.css", "space/uploads.js", "space/page.css", "data/sample/call.ogg")
PROGRAMS = ("space/app.py", "space/worker.py")
MODEL = ("model.onnx", "config.json")
MODEL_PLACE = "pretrained/lightweight-cnn"


def needed(files: Iterable[str]) -> set[str]:
    """The modules of this repository that these import as they load, and what those import."""
    found, left = set(), set(files)
    while left:
        name = left.pop()
        found.add(name)
        package = Path(name).parent.parts
        for statement in ast.parse((ROOT / name).read_text(encoding="utf-8")).body:
            if isinstance(statement, ast.ImportFrom):
                above = package[: len(package) + 1 - statement.level] if statement.level else ()
                base = (*above, *(statement.module or "").split("."))
                places = [Path(*base), *(Path(*base, alias.name) for alias in statement.names)]
                modules = [f"{place}.py" for place in places]
                modules += [f"{parent}/__init__.py" for parent in places[0].parents]
                left |= {module for module in modules if (ROOT / module).is_file() and module not in found}
    return found


def assemble(model: Path, output: Path) -> None:
    """
    Raises:
        ValueError: `model` lacks a file, or `output` is no directory or already holds something else.
        OSError: a file cannot be written.
    """
    for name in MODEL:
        if not (model / name).is_file():
            raise ValueError(f"--model {model} has no {name}; run python export.py --model {model} first")
    if output.exists() and not output.is_dir():
        raise ValueError(f"--output {output} is not a directory; name a new or empty one")
    if output.exists() and any(output.iterdir()) and not (output / "app.py").is_file():
        raise ValueError(f"--output {output} holds other files; name a new or empty directory")
    sources = {name: ROOT / "space" / name for name in PAGE}
    sources |= {name: ROOT / name for name in {*needed(PROGRAMS), *ASSETS} - {PROGRAMS[0]} if (ROOT / name).is_file()}
    sources |= {f"{MODEL_PLACE}/{name}": model / name for name in MODEL}
    for name, source in sources.items():
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, output / name)


def main() -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python space/assemble.py", description=__doc__, formatter_class=form)
    parser.add_argument("--model", type=Path, default=ROOT / MODEL_PLACE, help="model directory written by export.py")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    arguments = parser.parse_args()
    try:
        assemble(arguments.model, arguments.output)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    except OSError as error:
        raise SystemExit(f"error: --output {arguments.output}: {error.strerror or error}") from None
    print(f"{arguments.output}: try it with  cd {arguments.output} && python app.py")


if __name__ == "__main__":
    main()
