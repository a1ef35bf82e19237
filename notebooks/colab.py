"""What the notebook needs of Colab, and what stands in for it elsewhere.

| in Colab | elsewhere, from the environment |
|---|---|
| Google Drive | `FAST_DIARIZATION_DRIVE`, a directory |
| the secret `HF_TOKEN` | `HF_TOKEN`, and `HF_ENDPOINT` for another Hub |
| the upload dialogue | `FAST_DIARIZATION_UPLOAD`, a recording |
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

IN_COLAB = "COLAB_RELEASE_TAG" in os.environ


class CellError(RuntimeError):
    """Shown below a cell as one line."""

    def _render_traceback_(self) -> list[str]:
        return [f"error: {self}"]


def run(command: str) -> None:
    """Run a command in the repository; what it prints appears below the cell as it comes.

    An interrupt reaches the command too: it saves and leaves by itself.

    Raises:
        CellError: it did not end well.
    """
    process = subprocess.Popen(shlex.split(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    interrupted = False
    while True:
        try:
            if not (chunk := process.stdout.read1()):
                break
            sys.stdout.write(chunk.decode(errors="replace"))
            sys.stdout.flush()
        except KeyboardInterrupt:
            interrupted = True
    code = process.wait()
    if interrupted:
        raise CellError("interrupted; run this cell again to go on")
    if code:
        raise CellError(f"{command.split()[0]} ended with exit code {code}; the reason stands above")


def show_gpu() -> None:
    """Say what the training will run on."""
    import torch

    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 1e9
        print(f"{torch.cuda.get_device_name()}, {memory:.0f} GB")
    else:
        print(
            f"no GPU, {os.cpu_count()} CPU cores: enough for the demo corpus; "
            "for more choose Runtime > Change runtime type > T4 GPU"
        )


def mount_drive() -> Path:
    """A directory that outlives this machine.

    Raises:
        CellError: neither Drive nor what stands in for it.
    """
    if directory := os.environ.get("FAST_DIARIZATION_DRIVE"):
        drive = Path(directory)
    elif IN_COLAB:
        from google.colab import drive as google_drive

        google_drive.mount("/content/drive")
        drive = Path("/content/drive/MyDrive/fast-diarization")
    else:
        raise CellError("no Google Drive outside Colab; set FAST_DIARIZATION_DRIVE to a directory for checkpoints")
    drive.mkdir(parents=True, exist_ok=True)
    print(f"checkpoints are kept in {drive}")
    return drive


def sign_in() -> str | None:
    """Sign in to the Hub with the token of Colab's secrets or of the environment. The token is never shown.

    Returns:
        one's name there, or `None` without a token: then nothing can be pushed.

    Raises:
        CellError: the Hub does not accept the token.
    """
    from huggingface_hub import HfApi

    token = os.environ.get("HF_TOKEN")
    if token is None and IN_COLAB:
        from google.colab import userdata

        try:
            token = userdata.get("HF_TOKEN")
        except (userdata.SecretNotFoundError, userdata.NotebookAccessError):
            token = None
    if not token:
        print("not signed in: add the secret HF_TOKEN (the key symbol on the left) to push to the Hub")
        return None
    os.environ["HF_TOKEN"] = token
    try:
        name = HfApi(token=token).whoami()["name"]
    except Exception as error:
        reason = str(error).splitlines()[0].replace(token, "***")
        raise CellError(f"the Hub does not accept HF_TOKEN: {reason}") from None
    print(f"signed in as {name}")
    return name


def hub_flags(repository: str) -> str:
    """Flags of train.py that keep a copy of the checkpoints on the Hub, if a repository is named."""
    return f"--push_to_hub --hub_model_id {shlex.quote(repository)}" if repository else ""


def fine_tune(recordings: str, model: str, run_directory: str) -> str:
    """Fine-tune a model on annotated recordings, or go on with that.

    Args:
        recordings: directory of audio and RTTM files; empty for none.

    Returns:
        directory of the model to go on with.

    Raises:
        CellError: it did not end well.
    """
    if not recordings:
        print("no recordings named: the model stays as it is")
        return model
    run(
        f"accelerate launch train.py --config configs/fine_tune.yaml --dataset {shlex.quote(recordings)} demo "
        f"--start_from {shlex.quote(model)} --output_dir {shlex.quote(run_directory)} --resume"
    )
    return f"{run_directory}/model"


def upload() -> str:
    """The name of a recording to diarize.

    Raises:
        CellError: none was chosen.
    """
    if recording := os.environ.get("FAST_DIARIZATION_UPLOAD"):
        return recording
    if not IN_COLAB:
        raise CellError("no upload dialogue outside Colab; set FAST_DIARIZATION_UPLOAD to a recording")
    from google.colab import files

    chosen = files.upload()
    if not chosen:
        raise CellError("no file was chosen; run this cell again")
    return next(iter(chosen))
