"""Runs on annotated conversations, killed and resumed: on rows of a Hub, on a directory, on both beside simulation."""

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from annotated_fixtures import talks, write_directory, write_hub_set
from huggingface_hub import constants
from loopback_clients import redirect
from loopback_hub import LoopbackHub
from test_resume import assert_same, reached
from training_runs import start

pytestmark = pytest.mark.training

KINDS = {
    "hub": ["user/talks"],
    "directory": ["{directory}"],
    "mixed": ["demo", "user/talks", "{directory}", "--shares", "0.5", "0.25", "0.25"],
}


class OnTheHub:
    """Called in the process of a run: it talks to the Hub in the test and exports nothing."""

    def __init__(self, url: str, cache: Path):
        self.url, self.cache = url, cache

    def __call__(self) -> None:
        redirect(self.url, self.cache)
        constants.HF_HUB_DOWNLOAD_TIMEOUT = 5
        subprocess.run = lambda *_args, **_kwargs: SimpleNamespace(returncode=0)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A Hub with `user/talks`, a directory of calls, and where runs go."""
    path = tmp_path_factory.mktemp("places")
    made = talks()
    write_directory(path / "calls", made)
    write_hub_set(path / "set", made, row_group_size=1)
    with LoopbackHub() as server:
        server.add_repository("user/talks", path / "set")
        yield server, path


@pytest.mark.parametrize("kind", KINDS)
def test_killed_and_resumed_to_the_bit(places, kind):
    hub, path = places

    def run(name: str, *flags: str, workers: int = 2):
        corpora = [part.format(directory=path / "calls") for part in KINDS[kind]]
        settings = ["--max_steps", "12", "--save_steps", "2", "--dataloader_num_workers", str(workers)]
        output = ["--output_dir", str(path / f"{kind} {name}")]
        prepare = OnTheHub(hub.url, path / "cache")
        return start(
            "--dataset", *corpora, *settings, *output, *flags, log=path / f"{kind} {name}.log", prepare=prepare
        )

    whole = run("whole").ended()
    assert whole.exitcode == 0, whole.text()
    for workers in (3, 0):
        killed = run("killed", "--resume", workers=workers)
        before = reached(path / f"{kind} killed")
        killed.wait_for(lambda at=before: reached(path / f"{kind} killed") > at)
        killed.kill()
        killed.join()
    assert 0 < reached(path / f"{kind} killed") < 12
    resumed = run("killed", "--resume").ended()
    assert resumed.exitcode == 0, resumed.text()
    assert_same(path / f"{kind} killed" / "checkpoint-12", path / f"{kind} whole" / "checkpoint-12")
    assert "Traceback" not in resumed.text()
    if kind == "mixed":
        for changed, said in (
            (["--dataset", "demo", "user/talks", "--shares", "0.5", "0.5"], "made with 3 corpora and this run has 2"),
            (["--shares", "0.25", "0.5", "0.25"], "made with batch size 2 and this run has 1"),
        ):
            refused = run("whole", "--resume", *changed).ended()
            assert refused.exitcode == 1 and said in refused.text().splitlines()[-1]
