"""The page under attack: hostile, large and endless recordings, visitors of one file, a queue, Stop, leaving."""

import importlib
import json
import shutil
import signal
import subprocess
import sys
import urllib.request
import wave
from pathlib import Path

import pytest
import requests
from gradio_client import Client, handle_file
from page_in_browser import (  # noqa: F401 (fixtures)
    browser,
    find,
    folder,
    needs_browser,
    one_browser,
    serve,
    upload,
    wait_for,
)
from test_space import Player
from two_tones import write_recording

from space import jobs

pytestmark = pytest.mark.page
ROOT = Path(__file__).resolve().parent.parent

HANGING = """
import sys
from pathlib import Path
from threading import Event
from space import real_worker

if Path(sys.argv[2]).name.startswith("endless"):
    print('{"heard": 7.0}', flush=True)
    real_worker.leave_with_the_page()
    Event().wait()
real_worker.main(*sys.argv[1:])
"""


@pytest.fixture(scope="module")
def patient(folder, tmp_path_factory):  # noqa: F811
    """A Space's folder whose worker never ends where a recording is named so."""
    copy = tmp_path_factory.mktemp("patient") / "space"
    shutil.copytree(folder, copy)
    (copy / "space" / "worker.py").rename(copy / "space" / "real_worker.py")
    (copy / "space" / "worker.py").write_text(HANGING)
    return copy


@pytest.fixture(scope="module")
def narrow(patient, tmp_path_factory):
    """The page with one place and small limits: its address, process and uploads."""
    uploads = tmp_path_factory.mktemp("uploads")
    with serve(patient, uploads, PLACES=1, MOST_BYTES=2**20) as (address, server):
        yield address, server, uploads


def workers_of(server) -> list:
    return [child for child in server.children(recursive=True) if "space.worker" in child.cmdline()]


def claim_one_hertz(file: Path) -> Path:
    with wave.open(str(file), "wb") as written:
        written.setparams((1, 2, 1, 0, "NONE", ""))
        written.writeframes(b"\x10\x20" * 2**15)
    return file


def ask(client: Client, recording: Path, speakers: str = "automatic"):
    return client.submit(handle_file(str(recording)), speakers, api_name="/speakers_of_file")


def test_a_length_nobody_has_blocks_no_place(folder, tmp_path):  # noqa: F811
    with serve(folder, tmp_path / "uploads") as (address, _):
        client = Client(address, verbose=False)
        hostile = [ask(client, claim_one_hertz(tmp_path / f"{n}.wav")) for n in range(jobs.PLACES)]
        call = ask(client, write_recording(tmp_path / "call.wav"))
        assert call.result(60)[0] == "**2 speakers** in 3 segments of 0:15"
        for number, job in enumerate(hostile):
            assert job.result(60)[0].startswith(f"**error:** {number}.wav")


def test_visitors_of_one_file_get_their_own_answers_and_no_upload_is_replaced(folder, tmp_path):  # noqa: F811
    recording = write_recording(tmp_path / "call.wav").rename(tmp_path / "call.json")
    uploads = tmp_path / "uploads"
    with serve(folder, uploads) as (address, _):
        clients = [Client(address, verbose=False, download_files=False) for _ in range(2)]
        answers = [ask(client, recording, speakers).result(60) for client, speakers in zip(clients, ("automatic", "1"))]
        assert [answer[0].split(" in ")[0] for answer in answers] == ["**2 speakers**", "**1 speaker**"]
        for answer, speakers in zip(answers, (2, 1)):
            for download in answer[-3:]:
                text = urllib.request.urlopen(download["url"]).read().decode()
                assert ("SPEAKER_01" in text) == (speakers == 2)
        assert recording.read_bytes() in [file.read_bytes() for file in uploads.rglob("call.json")]


def test_uploads_and_answers_are_deleted(folder, tmp_path):  # noqa: F811
    uploads = tmp_path / "uploads"
    with serve(folder, uploads, KEPT_SECONDS=20, CLEANED_SECONDS=1) as (address, _):
        answer = ask(Client(address, verbose=False), write_recording(tmp_path / "call.wav")).result(60)
        assert "2 speakers" in answer[0]
        wait_for(lambda: not [file for file in uploads.rglob("*") if file.is_file()])


@needs_browser
def test_downloads_after_a_new_name_are_deleted_too(browser, folder, tmp_path):  # noqa: F811
    """As the page ends, when Gradio deletes every file that it would delete by its age."""
    uploads = tmp_path / "uploads"

    def files() -> list[Path]:
        return list(uploads.glob("*/*"))

    with serve(folder, uploads) as (address, server):
        upload(browser, address, write_recording(tmp_path / "call.wav"))
        Player(browser).rename("SPEAKER_01", "Ben")
        wait_for(lambda: any(b" Ben " in file.read_bytes() for file in files() if file.suffix == ".rttm"))
        browser.get("about:blank")
        server.send_signal(signal.SIGINT)
        wait_for(lambda: not files())


def test_a_file_that_is_too_large_is_refused_while_it_comes(narrow, tmp_path):
    address, _, uploads = narrow
    large = tmp_path / "large.wav"
    large.write_bytes(bytes(2**20 + 1))
    with large.open("rb") as file:
        answer = requests.post(f"{address}gradio_api/upload", files={"files": file}, timeout=60)
    assert (answer.status_code, "maximum allowed size" in answer.text) == (413, True)
    assert not list(uploads.rglob("large.wav"))


@needs_browser
def test_the_visitor_is_told_that_a_file_is_too_large(browser, narrow, tmp_path):  # noqa: F811
    from selenium.webdriver.common.by import By

    large = tmp_path / "large.wav"
    large.write_bytes(bytes(2**20 + 1))
    browser.get(narrow[0])
    assert "Up to 512 MB and 4 hours" in wait_for(lambda: find(browser, "h1 + p")).text
    wait_for(lambda: browser.find_elements(By.CSS_SELECTOR, "input[type=file]"))[0].send_keys(str(large))
    wait_for(lambda: "maximum allowed size" in browser.page_source)


@needs_browser
def test_one_waits_sees_the_place_and_gets_it_when_another_stops(browser, narrow, tmp_path):  # noqa: F811
    address, server, _ = narrow
    endless = write_recording(tmp_path / "endless.wav")
    assert upload(browser, address, endless, r"Listening: 0:07") == "Listening: 0:07 ..."
    (worker,) = workers_of(server)
    first = browser.current_window_handle
    browser.switch_to.new_window("tab")
    upload(browser, address, write_recording(tmp_path / "call.wav"), None)
    wait_for(lambda: "queue: 1/1" in find(browser, "body").text)
    second = browser.current_window_handle
    browser.switch_to.window(first)
    find(browser, "#stop").click()
    wait_for(lambda: find(browser, "#summary").text == "Stopped.")
    browser.switch_to.window(second)
    wait_for(lambda: find(browser, "#summary").text == "2 speakers in 3 segments of 0:15")
    wait_for(lambda: not worker.is_running())


@needs_browser
def test_who_leaves_frees_the_place(browser, narrow, tmp_path):  # noqa: F811
    address, server, _ = narrow
    upload(browser, address, write_recording(tmp_path / "endless.wav"), r"Listening: 0:07")
    (worker,) = workers_of(server)
    browser.get("about:blank")
    wait_for(lambda: not worker.is_running())


def test_a_page_that_is_killed_leaves_no_worker(patient, tmp_path):
    with serve(patient, tmp_path / "uploads") as (address, server):
        job = ask(Client(address, verbose=False), write_recording(tmp_path / "endless.wav"))
        wait_for(lambda: job.outputs() and "0:07" in job.outputs()[-1][0])
        (worker,) = workers_of(server)
        server.kill()
        wait_for(lambda: not worker.is_running())


def work(patient: Path, monkeypatch, recording: Path, **limits) -> list[dict]:
    for name, value in ({"ROOT": patient} | limits).items():
        monkeypatch.setattr(jobs, name, value)
    return list(
        jobs.diarize_apart(
            patient / "pretrained/lightweight-cnn/model.onnx", recording, None, recording.with_name("copy.wav")
        )
    )


def test_a_job_has_its_time(patient, tmp_path, monkeypatch):
    with pytest.raises(jobs.JobError, match="^endless.wav took more than 0.05 minutes; cut it into parts$"):
        work(patient, monkeypatch, write_recording(tmp_path / "endless.wav"), JOB_SECONDS=3.0)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"MOST_BYTES": 1000}, "^call.wav is larger than 0 MB; cut it, or upload its sound alone$"),
        ({"MOST_SECONDS": 10}, "^call.wav is longer than 0.00277778 hours; cut it into parts$"),
    ],
)
def test_what_is_too_large_or_too_long_is_not_begun(limits, message, patient, tmp_path, monkeypatch):
    with pytest.raises(jobs.JobError, match=message):
        work(patient, monkeypatch, write_recording(tmp_path / "call.wav"), **limits)


def test_words_are_counted_before_they_are_shown(tmp_path, monkeypatch):
    app = importlib.import_module("space.app")
    monkeypatch.setattr(jobs, "MOST_WORDS", 3)
    (tmp_path / "asr.json").write_text(json.dumps([{"text": "one two three", "start": 0, "end": 2}]))
    assert app.read_words(str(tmp_path / "asr.json"))[1] == "3 words in asr.json"
    (tmp_path / "asr.json").write_text(json.dumps([{"text": "one two three four", "start": 0, "end": 2}]))
    too_many = "**error:** asr.json has more than 3 words; cut it into parts"
    assert app.read_words(str(tmp_path / "asr.json")) == (None, too_many)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits what a process allocates")
def test_a_job_has_its_memory():
    code = "from space.worker import MOST_MEMORY, limit_memory; limit_memory(); bytes(MOST_MEMORY)"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ended.stderr.splitlines()[-1] == "MemoryError"


def test_what_is_longer_than_it_says_is_not_heard_to_its_end(tmp_path):
    from modeling.audio_fast_diarization import AudioError
    from space.worker import bounded

    flac = write_recording(tmp_path / "call.flac")
    data = bytearray(flac.read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)  # the number of samples: unknown
    flac.write_bytes(data)
    heard = []
    with pytest.raises(AudioError, match="call.flac is longer than"):
        heard += bounded(flac, 12.0)


def test_a_decoder_that_dies_takes_nothing_with_it(patient, tmp_path, monkeypatch):
    broken = tmp_path / "space"
    broken.mkdir()
    (broken / "worker.py").write_text("import os; print('{\"heard\": 1.0}', flush=True); os.abort()")
    monkeypatch.setattr(jobs, "ROOT", tmp_path)
    with pytest.raises(jobs.JobError, match="^call.wav could not be read to its end: it is damaged"):
        list(jobs.diarize_apart(tmp_path, write_recording(tmp_path / "call.wav"), None, tmp_path / "copy.wav"))


def test_a_microphone_may_change_its_rate(folder):  # noqa: F811
    script = """
import json, numpy as np, app
live, heard = None, []
for rate, tone in ((48_000, 300.0), (16_000, 2000.0), (44_100, 300.0)):
    for second in range(5):
        time = second + np.arange(rate) / rate
        samples = (16_000 * np.sin(2 * np.pi * tone * time)).astype(np.int16)
        bars, now, live = app.speakers_live((rate, samples), live)
    heard.append(now)
for rate in (0, 1, -16_000, 10**9):
    heard.append(app.speakers_live((rate, samples), live)[1])
print(json.dumps([heard, live.seconds]))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    heard, seconds = json.loads(done.stdout)
    assert heard[:3] == [f"**Speaking now:** SPEAKER\\_0{n}" for n in (0, 1, 0)]
    assert all(said.startswith("**error:** a microphone at ") for said in heard[3:])
    assert seconds == 15
