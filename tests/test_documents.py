"""README and docs say what is true, shortly and plainly: Python blocks run, commands fit the scripts, links work.

A Python block with a comment such as `# needs a GPU` (see `MARKERS`) is only compiled. Commands are held against the
argument parsers of the scripts; those that diarize `call.wav` are run.
"""

import argparse
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from audio_files import write_sample_call

from common import addresses
from diarization.formats import to_rttm
from modeling import (
    FastDiarizationConfig,
    FastDiarizationFeatureExtractor,
    FastDiarizationForAudioFrameClassification,
)
from modeling.segments_fast_diarization import Segment

pytestmark = pytest.mark.documents

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "space" / "README.md",
]
CARDS = [ROOT / "model_card.md", ROOT / "data/demo/README.md", *sorted((ROOT / "pretrained").glob("*/README.md"))]
MOST_LINES = {"README.md": 140, "docs/RESULTS.md": 160, "pretrained": 130}
PROGRAMS = (
    "*.py",
    "training",
    "publishing",
    "benchmark",
    "evaluation",
    "data",
    "common",
    "docs",
    "notebooks",
    "configs",
)
PRIVATE_WORDS = (
    "what to train on what",
    "goes on where it was",
    "given again",
    "going on from",
    "at least so many",
    "at most so many",
    "at most so long",
    "only so many",
    "do them apart",
    "true one there",
    "answers elsewhere",
    "on many voices first",
    '"Of the contrastive',
    "never replaced",
    "shorter than nothing",
    "overlaps himself",
    "by himself",
    "may be later",
    "heard alone",
    "speakers told",
    "as train.py takes it",
)
"""Words of our own for which plain English or the field has others."""
MARKERS = ("# needs the network", "# needs a GPU", "# needs a microphone", "# takes minutes")
ENTRY_POINTS = ("parse_args", "parse_known_args", "parse_intermixed_args", "parse_known_intermixed_args")
OTHER_PROGRAMS = (
    "cd",
    "ffmpeg",
    "hf",
    "git",
    "pip",
    "pytest",
    "python3",
    "tensorboard",
    "unzip",
    "uvicorn",
    "apt-get",
    "curl",
    "ls",
    "ruff",
    ".",
)
each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.relative_to(ROOT).as_posix())


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^( *)```{language}\n(.*?)^\1```", document.read_text(), re.S | re.M)


def code(document: Path, language: str) -> list[str]:
    """The blocks in a language, those of lists moved to the left."""
    return ["\n".join(line.removeprefix(i) for line in text.splitlines()) for i, text in blocks(document, language)]


def commands(document: Path) -> list[str]:
    lines = "\n".join(code(document, "bash")).replace("\\\n", " ").splitlines()
    return [part.strip() for line in lines for part in line.split("  #")[0].split("&&") if part.strip(" #")]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """The repository as a user sees it, with a small untrained model where a trained one would be, and a call."""
    place = tmp_path_factory.mktemp("workplace")
    for entry in ROOT.iterdir():
        if entry.name not in (".git", "runs", "pretrained", "results"):
            (place / entry.name).symlink_to(entry)
    model = FastDiarizationForAudioFrameClassification(FastDiarizationConfig(hidden_size=16)).eval()
    models = [place / "runs" / "demo" / "model"]
    if (ROOT / "pretrained").is_dir():
        (place / "pretrained").symlink_to(ROOT / "pretrained")
    else:
        models += [place / "pretrained" / name for name in ("lightweight-cnn", "attention-gru")]
    models[0].mkdir(parents=True)
    model.save_pretrained(models[0])
    FastDiarizationFeatureExtractor().save_pretrained(models[0])
    subprocess.run([sys.executable, "export.py", "--model", "runs/demo/model"], cwd=place, check=True)
    for other in models[1:]:
        other.parent.mkdir(exist_ok=True)
        other.symlink_to(models[0])
    write_sample_call(place / "call.wav")
    (place / "call.rttm").write_text(to_rttm("call", [Segment(0.0, 4.0, "A", 1.0), Segment(5.0, 9.0, "B", 1.0)]))
    (place / "asr.json").write_text(json.dumps([{"word": "Hello", "start": 1.0, "end": 1.5}]))
    return place


@each_document
def test_python_blocks_run(document, workplace, tmp_path):
    """All blocks of a document in one process, in order, as a reader would try them."""
    runnable = []
    for block in code(document, "python"):
        compile(block, document.name, "exec")
        if not any(marker in block for marker in MARKERS):
            runnable.append(block)
    if not runnable:
        return
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(runnable)],
        cwd=workplace,
        env={**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_python_blocks_of_readme_run_where_the_repository_is_not(workplace, tmp_path):
    write_sample_call(tmp_path / "call.wav")
    model = (workplace / "pretrained" / "lightweight-cnn").resolve()
    settings = {"FAST_DIARIZATION_MODEL": str(model), "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", "\n".join(code(ROOT / "README.md", "python"))]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, **settings}, capture_output=True, text=True)
    assert done.returncode == 0 and "'SPEAKER_01'" in done.stdout, done.stderr


class Parsed(BaseException):
    """A script came past its argument parser."""


@pytest.fixture
def parse_only(monkeypatch, workplace):
    """Makes every script stop with `Parsed` once its arguments are accepted."""
    depth = 0

    def until_parsed(original):
        def parse(*arguments, **keywords):
            nonlocal depth
            depth += 1
            try:
                answer = original(*arguments, **keywords)
            finally:
                depth -= 1
            if depth:
                return answer
            unknown = answer[1] if isinstance(answer, tuple) else []
            raise AssertionError(f"unknown arguments: {unknown}") if unknown else Parsed

        return parse

    for name in ENTRY_POINTS:
        monkeypatch.setattr(argparse.ArgumentParser, name, until_parsed(getattr(argparse.ArgumentParser, name)))
    monkeypatch.chdir(workplace)

    def run(script: str, arguments: list[str]):
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        as_module = not script.endswith(".py")
        for module in (script, f"{script}.__main__"):  # a program is a fresh process, and runpy warns otherwise
            monkeypatch.delitem(sys.modules, module, raising=False)
        try:
            runpy.run_module(script, run_name="__main__") if as_module else runpy.run_path(script, run_name="__main__")
        except Parsed:
            return
        except SystemExit as error:
            raise AssertionError(f"{script} does not take {arguments}: {error}") from None
        raise AssertionError(f"{script} did not parse its arguments")

    return run


def script_of(words: list[str]) -> tuple[str, list[str]] | None:
    """Script or module, and its arguments, of a command that runs one of ours."""
    if words[0] in ("accelerate", "torchrun"):
        at = next(i for i, word in enumerate(words) if word.endswith(".py"))
        return words[at], words[at + 1 :]
    if words[:2] == ["python", "-m"]:
        return words[2], words[3:]
    if words[0] == "python":
        return words[1], words[2:]
    return None


@each_document
def test_commands_fit_the_scripts(document, parse_only):
    for command in commands(document):
        words = shlex.split(command.split(" > ")[0])
        while re.fullmatch(r"[A-Z_0-9]+=.*", words[0]):
            words.pop(0)
        if words[:3] == ["pip", "install", "-r"]:
            assert (ROOT / words[3]).is_file(), command
        elif script := script_of(words):
            if script[0] == "space.app":
                continue  # has no arguments
            parse_only(*script)
        else:
            assert (Path(words[0]).name or words[0]) in OTHER_PROGRAMS, (
                f"{document.name}: {command!r} runs a program not known here"
            )


@each_document
def test_commands_on_the_call_run(document, workplace):
    for command in commands(document):
        if command.startswith(("python diarize.py call.wav", "python diarize.py data/sample/call.ogg")):
            words = [sys.executable, *shlex.split(command)[1:]]
            done = subprocess.run(words, cwd=workplace, capture_output=True, text=True)
            assert done.returncode == 0, f"{command}\n{done.stderr}"


def slugs(document: Path) -> set[str]:
    """Anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.*)$", document.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_document
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), f"{document.name} links to {target}"
        if anchor:
            assert anchor in slugs(file), f"{document.name} links to {target}, which has {sorted(slugs(file))}"


@pytest.mark.parametrize("document", [*DOCUMENTS, *CARDS], ids=lambda d: d.relative_to(ROOT).as_posix())
def test_pages_are_short(document):
    name = document.relative_to(ROOT).as_posix()
    most = MOST_LINES.get(name, MOST_LINES.get(name.split("/")[0], 200))
    assert len(document.read_text().splitlines()) <= most


def test_pages_and_programs_speak_plain_english():
    """None of the phrases of our own, whatever the line breaks, in pages, help texts, docstrings and messages."""
    files = {*DOCUMENTS, *CARDS, ROOT / "publishing/results_template.md"}
    for place in PROGRAMS:
        for file in ROOT.glob(place):
            files |= {f for f in file.rglob("*") if f.suffix in (".py", ".yaml", ".ipynb")} if file.is_dir() else {file}
    found = []
    for file in files:
        text = " ".join(re.sub(r'"\s*\n\s*f?"', "", file.read_text()).split())
        found += [f"{file.relative_to(ROOT)}: {words}" for words in PRIVATE_WORDS if words in text]
    assert not found


@pytest.mark.parametrize("document", [*DOCUMENTS, *CARDS], ids=lambda d: d.relative_to(ROOT).as_posix())
def test_addresses_of_the_project_are_those_of_the_setting(document):
    """What is called like the project is published where `common/addresses.py` says, or a mistake."""
    text = document.read_text()
    for found in re.findall(r"https://github\.com/[\w-]+/fast-diarization[\w-]*", text):
        assert found == addresses.REPOSITORY
    for found in re.findall(r"huggingface\.co/(?:spaces/)?([\w-]+/(?:fast-diarization|who-speaks-when)[\w-]*)", text):
        assert found in (*addresses.MODELS.values(), addresses.SPACE)


def test_floor_is_explained_where_a_page_first_uses_it():
    for document in (*DOCUMENTS, *CARDS):
        text = " ".join(document.read_text().split())
        if re.search(r"\bfloors?\b", text):
            assert "one-speaker oracle" in text, document.name
