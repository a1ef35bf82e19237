"""What the notebook needs from Colab, and its replacements elsewhere.

| in Colab | elsewhere, from the environment |
|---|---|
| Google Drive | `FAST_DIARIZATION_DRIVE`, a directory |
| the secret `HF_TOKEN` | `HF_TOKEN`, and `HF_ENDPOINT` for another Hub |
| the upload dialogue | `FAST_DIARIZATION_UPLOAD`, a recording |
"""

import importlib.metadata
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

IN_COLAB = "COLAB_RELEASE_TAG" in os.environ


class CellError(RuntimeError):
    """An error that is shown below a cell as one line."""

    def _render_traceback_(self) -> list[str]:
        return [f"error: {self}"]


def run(command: str) -> None:
    """Run a command in the repository and show its output below the cell as it appears.

    An interrupt also reaches the command, which saves and exits by itself.

    Raises:
        CellError: the command failed or was interrupted.
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
        raise CellError("interrupted; run this cell again to continue")
    if code:
        raise CellError(f"{command.split()[0]} ended with exit code {code}; the reason is above")


def install() -> None:
    """Install what the repository needs beside what is there, and tell what was replaced.

    Raises:
        CellError: pip failed, or a package was replaced that this session has loaded.
    """
    before = _installed()
    run("pip install --quiet -r requirements.txt")
    after = _installed()
    replaced = {name for name, version in before.items() if after.get(name) != version}
    said = ", ".join(f"{name} {before[name]} by {after.get(name, 'nothing')}" for name in sorted(replaced))
    print(f"replaced {said}" if replaced else "nothing that was installed before was changed")
    packages = importlib.metadata.packages_distributions()
    loaded = {name for module in {name.partition(".")[0] for name in sys.modules} for name in packages.get(module, ())}
    if stale := sorted(replaced & {_canonical(name) for name in loaded}):
        raise CellError(
            f"this session has loaded another {', '.join(stale)}: choose Runtime > Restart session, then run all cells"
        )


def _installed() -> dict[str, str]:
    """The version of each installed distribution by its name."""
    importlib.invalidate_caches()
    return {_canonical(d.name): d.version for d in importlib.metadata.distributions() if d.name}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def show_gpu() -> None:
    """Print the device that training will use."""
    import torch

    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 1e9
        print(f"{torch.cuda.get_device_name()}, {memory:.0f} GB")
    else:
        print(
            f"no GPU, {os.cpu_count()} CPU cores: enough for the demo corpus; "
            "for larger ones choose Runtime > Change runtime type > T4 GPU"
        )


def mount_drive() -> Path:
    """A directory that outlives the session.

    Raises:
        CellError: there is neither Drive nor a replacement.
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
        the account's name, or `None` without a token; then nothing can be pushed.

    Raises:
        CellError: the Hub rejects the token.
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
        raise CellError(f"the Hub rejects HF_TOKEN: {reason}") from None
    print(f"signed in as {name}")
    return name


def hub_flags(repository: str) -> str:
    """Flags of train.py that also keep checkpoints on the Hub, if a repository is named."""
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
    """The file name of a recording to diarize.

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
