"""The installed package: light, usable anywhere, one name in site-packages; and what the requirements files say."""

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from audio_files import write_sample_call

from common.version import __version__

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NOT_LIGHT = ("torch", "transformers", "huggingface_hub", "datasets", "pyannote", "scipy", "soundfile", "pandas", "tqdm")
COMMAND = """
import sys
sys.modules.update({{name: None for name in {absent}}})
import fast_diarization.common.command
fast_diarization.common.command.main()
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A directory as site-packages, from a wheel that is built of the files that git knows."""
    source, wheels, site = (tmp_path_factory.mktemp(name) for name in ("source", "wheels", "site"))
    listed = ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and not name.startswith(("tests/", "docs/")) and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q"]
    built = subprocess.run([*command, "--wheel-dir", wheels, source], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (wheel,) = wheels.glob("*.whl")
    assert wheel.name == f"fast_diarization-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def run(installed: Path, where: Path, *arguments: str, absent: tuple[str, ...] = (), **environment: str):
    code = COMMAND.format(absent=absent)
    variables = {"PATH": "/usr/bin:/bin", "HOME": str(where), "PYTHONPATH": str(installed), **environment}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=where, env=variables, capture_output=True, text=True)


@pytest.mark.process
def test_one_name_lands_in_site_packages(installed):
    names = {entry.name for entry in installed.iterdir()}
    assert names == {"fast_diarization", f"fast_diarization-{__version__}.dist-info"}
    inside = {path.relative_to(installed / "fast_diarization").as_posix() for path in installed.rglob("*.py")}
    here = subprocess.run(["git", "-C", ROOT, "ls-files", "*.py"], capture_output=True, text=True, check=True).stdout
    left_out = ("tests/", "docs/", "notebooks/", "pretrained/", "data/demo/")
    assert inside >= {name for name in here.split() if not name.startswith(left_out)}
    assert not any(name.startswith(left_out) for name in inside)
    assert {path.name for path in (installed / "fast_diarization/space").iterdir()} >= {
        file.name for file in (ROOT / "space").iterdir() if file.suffix in (".css", ".js")
    }
    entry = (installed / f"fast_diarization-{__version__}.dist-info" / "entry_points.txt").read_text()
    assert "fast-diarization = fast_diarization.common.command:main" in entry


@pytest.mark.process
def test_a_recording_in_another_directory_with_the_light_set_alone(installed, tmp_path):
    write_sample_call(tmp_path / "call.wav")
    done = run(installed, tmp_path, "call.wav", absent=NOT_LIGHT)
    assert (done.returncode, done.stderr) == (0, "")
    there = (tmp_path / "results" / "call.rttm").read_text()
    clone = [sys.executable, ROOT / "diarize.py", "call.wav", "--output", "clone"]
    subprocess.run(clone, cwd=tmp_path, check=True, capture_output=True)
    assert there == (tmp_path / "clone" / "call.rttm").read_text() and there.startswith("SPEAKER call 1 ")


@pytest.mark.process
def test_the_scripts_by_their_names(installed, tmp_path):
    programs = {name: f"fast-diarization {name}" for name in ("export", "bench", "evaluate")}
    for name, program in {"train": "accelerate launch train.py", **programs}.items():
        done = run(installed, tmp_path, name, "--help")
        assert done.returncode == 0 and done.stdout.startswith(f"usage: {program} "), done.stdout + done.stderr
    said = run(installed, tmp_path, "--help").stdout
    assert said.startswith("usage: fast-diarization [")
    assert all(f"\n    fast-diarization {name} " in said for name in ("train", *programs, "page"))
    done = run(installed, tmp_path, "train", "--config", str(installed / "fast_diarization/configs/demo.yaml"), "--x")
    assert done.returncode and done.stderr == "error: unknown flag --x; see --help\n"


@pytest.mark.process
@pytest.mark.parametrize(
    ("absent", "flags", "needed"),
    [
        (("av",), [], "pip install numpy onnxruntime av is enough for recordings"),
        (("onnxruntime",), [], "pip install numpy onnxruntime av is enough for recordings"),
        (("pyannote",), ["--reference", "call.rttm"], "training need pip install -r requirements.txt"),
        (("datasets",), ["--dataset", "user/name"], "training need pip install -r requirements.txt"),
    ],
)
def test_what_is_missing_is_one_line_that_says_what_to_install(installed, absent, flags, needed, tmp_path):
    write_sample_call(tmp_path / "call.wav")
    (tmp_path / "call.rttm").write_text("SPEAKER call 1 0.0 4.0 <NA> <NA> a <NA> <NA>\n")
    done = run(installed, tmp_path, *([] if "--dataset" in flags else ["call.wav"]), *flags, absent=absent)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and needed in line and absent[0] in line.replace("PyAV", "av")


# Requirements


def requirements(file: str) -> list[str]:
    lines = (line.strip() for line in (ROOT / file).read_text().splitlines())
    return [line for line in lines if line and not line.startswith(("#", "-r"))]


def test_extras_are_the_requirements_files():
    project, extras = PROJECT["project"], PROJECT["project"]["optional-dependencies"]
    assert {*requirements("requirements.txt"), "numpy>=1.26"} == {*project["dependencies"], *extras["train"]}
    assert ["fast-diarization[train]", *requirements("requirements-dev.txt")] == extras["dev"]
    assert {*requirements("space/requirements.txt")} == {*project["dependencies"], *extras["page"]}


def test_both_stacks_ask_for_the_same_elsewhere():
    default, optimum = ({*requirements(f"requirements{name}.txt")} for name in ("", "-optimum"))
    name_of = re.compile(r"[\w.-]+")
    of_the_stack = {"transformers", "datasets", "huggingface_hub", "urllib3", "optimum", "optimum-onnx", "onnxruntime"}
    assert {name_of.match(line)[0] for line in default ^ optimum} == of_the_stack
    assert [line for line in optimum if "onnxruntime-gpu" in line], "both packages at once would share a directory"


@pytest.mark.process
def test_training_imports_neither_evaluate_nor_optimum():
    modules = [path.with_suffix("").relative_to(ROOT) for path in (ROOT / "training").glob("*.py")]
    names = ["train", *sorted(".".join(module.parts) for module in modules if module.name != "__init__")]
    code = f"""
import sys
sys.modules.update(evaluate=None, optimum=None)
import importlib, json
print(json.dumps([importlib.import_module(name).__name__ for name in {names}]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == names


@pytest.mark.process
def test_evaluate_is_imported_by_its_metric_alone():
    files = subprocess.run(["git", "-C", ROOT, "ls-files", "*.py"], capture_output=True, text=True, check=True).stdout
    importing = []
    for name in files.split():
        for node in ast.walk(ast.parse((ROOT / name).read_text())):
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            imported += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            if any(module.partition(".")[0] == "evaluate" for module in imported):
                importing.append(name)
    assert [name for name in importing if not name.startswith("tests/")] == [
        "evaluation/diarization_error_rate/diarization_error_rate.py"
    ]


def test_what_runs_on_optimums_stack_is_there():
    for line in requirements(".ci/optimum-tests"):
        file, _, test = line.partition("::")
        assert (ROOT / file).is_file() and f"def {test}" in (ROOT / file).read_text(), line
