"""The Colab notebook, executed whole without Colab, Drive or Hub; the machine is lost in the middle of training."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import pytest
from loopback_hub import LoopbackHub
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

from common import addresses
from notebooks import colab
from training.arguments import parse

pytestmark = pytest.mark.documents

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "notebooks" / "streaming_training_colab.ipynb"
HUB_MODEL = "tester/from-the-notebook"
TOKEN = "hf_never_to_be_printed"
STEPS = 24
OPTIONS = (
    f"--max_steps {STEPS} --save_steps 4 --eval_steps 12 --logging_steps 2 --warmup_steps 2 --eval_windows 16 "
    "--per_device_train_batch_size 8 --hidden_size 32"
)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A clone of the repository to work in, with stand-ins for Drive, the Hub and the upload dialogue."""
    clone = tmp_path / "clone"
    listed = ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and not name.startswith(("tests/", "pretrained/")) and (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, clone / name)
    latency = clone / "benchmark" / "latency.py"
    text = latency.read_text()
    latency.write_text(text.replace("COLD_STARTS = 5", "COLD_STARTS = 1"))  # five take a minute
    assert latency.read_text() != text
    with LoopbackHub() as hub:
        for name, value in {
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": TOKEN,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
            "FAST_DIARIZATION_DRIVE": str(tmp_path / "drive"),
            "FAST_DIARIZATION_UPLOAD": "runs/demo/example/conversation.wav",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "IPYTHONDIR": str(tmp_path / "ipython"),
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("PYTHONPATH", raising=False)
        yield clone, tmp_path / "drive", hub


def with_parameters(**values):
    """The notebook with its parameters set by a cell behind them, as papermill does it."""
    notebook = nbformat.read(NOTEBOOK, 4)
    (at,) = [i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
    source = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    notebook.cells.insert(at + 1, nbformat.v4.new_code_cell(source))
    return notebook


def shown(cell) -> str:
    """What a cell printed."""
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def pictures(cell) -> list[str]:
    return [kind for output in cell.outputs if output.output_type == "display_data" for kind in output.data]


def cell_with(notebook, text: str):
    (cell,) = [cell for cell in notebook.cells if cell.cell_type == "code" and text in cell.source]
    return cell


def lose_machine_once(client: NotebookClient, checkpoint: Path):
    """Kill the kernel and everything it started, as soon as a checkpoint is there."""
    while not checkpoint.is_file():
        time.sleep(0.05)
    os.killpg(client.km.provisioner.pgid, signal.SIGKILL)


@pytest.mark.slow
def test_all_cells_run_and_a_lost_machine_goes_on(machine):
    clone, drive, hub = machine
    parameters = {"CORPUS": "demo", "OPTIONS": OPTIONS, "HUB_MODEL": HUB_MODEL}

    lost = with_parameters(**parameters)
    lost.cells.remove(cell_with(lost, "docs.example"))
    client = NotebookClient(lost, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(clone)}})
    watch = threading.Thread(
        target=lose_machine_once, args=(client, drive / "demo" / "checkpoint-slot-0.zip"), daemon=True
    )
    watch.start()
    with pytest.raises(DeadKernelError):
        client.execute()
    assert not watch.is_alive()
    shutil.rmtree(clone / "runs")

    notebook = with_parameters(**parameters)
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(clone)}}).execute()

    training = shown(cell_with(notebook, "accelerate launch"))
    resumed = re.search(r"resuming from \S*checkpoint-(\d+)", training)
    assert resumed and 4 <= int(resumed[1]) < STEPS
    assert "two-speaker windows" in training
    assert "signed in as tester" in shown(cell_with(notebook, "sign_in"))
    conversation = pictures(cell_with(notebook, "docs.example"))
    assert "text/html" in conversation and "image/png" in conversation
    assert "image/png" in pictures(cell_with(notebook, "training.curves"))
    assert re.search(r"\| total \| \d+\.\d \| \d+\.\d \(\d+\.\d\)", shown(cell_with(notebook, "python -m evaluation")))
    assert "of torch" in shown(cell_with(notebook, "export.py"))
    assert '"p99_ms"' in shown(cell_with(notebook, "bench.py"))
    assert shown(cell_with(notebook, "upload_model")).rstrip().endswith(f"{hub.url}/{HUB_MODEL}")
    assert "image/png" in pictures(cell_with(notebook, "colab.upload"))

    pushed = hub.files(HUB_MODEL)
    assert {"model.safetensors", "model.onnx", "config.json", "modeling_fast_diarization.py"} <= pushed.keys()
    card = pushed["README.md"].decode()
    assert card.startswith("---") and f"{STEPS} steps" in card and "P99" in card
    assert TOKEN not in nbformat.writes(notebook)


def fetched(place: Path, repository: str):
    """The first cell run in a directory; its outputs, and the working directory that it leaves to the next cell."""
    notebook = nbformat.read(NOTEBOOK, 4)
    (first,) = [cell for cell in notebook.cells if "repository" in cell.metadata.get("tags", [])]
    assert f"REPOSITORY = {json.dumps(addresses.REPOSITORY or '')}  #" in first.source
    first.source = re.sub("^REPOSITORY = .*", f"REPOSITORY = {repository!r}", first.source)
    notebook.cells = [first, nbformat.v4.new_code_cell("print(os.getcwd(), os.listdir())")]
    client = NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(place)}})
    try:
        client.execute()
    except CellExecutionError:
        (error,) = [output for output in first.outputs if output.output_type == "error"]
        return error.traceback
    return shown(notebook.cells[1])


def git(*arguments: str | Path) -> str:
    identity = ["-c", "user.name=tester", "-c", "user.email=tester@localhost"]
    return subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def test_the_first_cell_clones_and_later_updates(tmp_path):
    source, place = tmp_path / "source", tmp_path / "session"
    place.mkdir()
    git("init", "-q", source)
    for name in ("diarize.py", "train.py"):
        (source / name).write_text("")
        git("-C", source, "add", name)
        git("-C", source, "commit", "-q", "-m", name)

    assert fetched(place, " ") == [
        "error: REPOSITORY is empty: set it above to the address to clone Fast Diarization from"
    ]
    (line,) = fetched(place, f"file://{tmp_path}/nothing")
    assert line == f"error: file://{tmp_path}/nothing cannot be cloned; check the address and the connection"
    assert not list(place.iterdir())

    clone = place / "fast-diarization"
    assert fetched(place, f"file://{source}").startswith(f"{clone} ")
    assert git("-C", clone, "rev-list", "--count", "HEAD") == "1", "a shallow clone"

    (source / "new.py").write_text("")
    git("-C", source, "add", "new.py")
    git("-C", source, "commit", "-q", "-m", "new")
    assert "new.py" in fetched(place, "")
    source.rename(tmp_path / "away")
    assert fetched(place, f"file://{source}").startswith(f"{clone} "), "offline, the clone is used as it is"
    assert fetched(clone, "").startswith(f"{clone} "), "inside a clone nothing is done"


@pytest.mark.parametrize(
    ("replaced", "said"),
    [
        ({}, "nothing that was installed before was changed"),
        ({"av": "1.0"}, "nothing that was installed before was changed"),
        ({"absent-here": "2.0"}, "replaced absent-here 1.0 by 2.0"),
    ],
)
def test_installing_tells_what_was_replaced(replaced, said, monkeypatch, capsys):
    states = iter([{"numpy": "1.0", "absent-here": "1.0"}, {"numpy": "1.0", "absent-here": "1.0"} | replaced])
    monkeypatch.setattr(colab, "_installed", lambda: next(states))
    monkeypatch.setattr(colab, "run", lambda command: print(command))
    colab.install()
    assert capsys.readouterr().out.splitlines() == ["pip install --quiet -r requirements.txt", said]


def test_a_loaded_package_that_was_replaced_asks_for_a_restart(monkeypatch):
    states = iter([{"numpy": "1.0"}, {"numpy": "2.0"}])
    monkeypatch.setattr(colab, "_installed", lambda: next(states))
    monkeypatch.setattr(colab, "run", lambda command: None)
    with pytest.raises(colab.CellError, match="has loaded another numpy: choose Runtime > Restart session"):
        colab.install()


def test_every_cell_calls_the_repository():
    """No logic in the notebook: no definitions, loops or branches beyond fetching the repository."""
    notebook = nbformat.read(NOTEBOOK, 4)
    for cell in notebook.cells:
        if cell.cell_type == "code" and "repository" not in cell.metadata.get("tags", []):
            assert not re.search(r"^\s*(def|class|for|while|if|try|with)\b", cell.source, re.M), cell.source
            assert not cell.outputs and cell.execution_count is None


def test_fine_tuning_on_named_recordings_alone(monkeypatch, capsys):
    commands = []
    monkeypatch.setattr(colab, "run", commands.append)
    monkeypatch.chdir(ROOT)
    assert colab.fine_tune("", "runs/demo/model", "runs/tuned") == "runs/demo/model" and not commands
    assert "stays as it is" in capsys.readouterr().out
    assert colab.fine_tune("my calls", "runs/demo/model", "runs/tuned") == "runs/tuned/model"
    (command,) = commands
    arguments, training = parse("", shlex.split(command)[3:])
    assert (arguments.dataset, arguments.shares) == (["my calls", "demo"], [0.5, 0.5])
    assert (arguments.start_from, training.output_dir, arguments.resume) == ("runs/demo/model", "runs/tuned", True)


def test_a_failed_command_is_one_line_below_its_cell(machine):
    clone, _, _ = machine
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(
                "from notebooks import colab\ncolab.run('python diarize.py missing.wav --model /no/model')"
            )
        ]
    )
    client = NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(clone)}})
    with pytest.raises(CellExecutionError):
        client.execute()
    (error,) = [output for output in notebook.cells[0].outputs if output.output_type == "error"]
    assert error.traceback == ["error: python ended with exit code 2; the reason is above"]
    assert "no such directory" in shown(notebook.cells[0])
