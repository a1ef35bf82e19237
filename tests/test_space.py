"""The page in a real browser, run from the folder that a Space would be."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
from two_tones import TURNS, write_model, write_recording

from data.rttm import read_rttm
from space.assemble import assemble

pytestmark = pytest.mark.page

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver here")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1200,1300",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
)
WAIT = 180
FITS = """
const wide = (element) => element.scrollWidth > element.clientWidth
return ![document.documentElement, ...document.querySelectorAll("#timeline, #segments .table-wrap")].some(wide)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("space")
    assemble(write_model(tmp_path_factory.mktemp("model")), folder)
    return folder


@contextlib.contextmanager
def serve(folder: Path, uploads: Path, **limits):
    """Address and process of the page, served from nothing but a Space's folder, with other limits if given."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "FAST_DIARIZATION_MODEL")}
    settings = {"GRADIO_SERVER_PORT": str(port), "GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(uploads)}
    script = f"from space import jobs; vars(jobs).update({limits}); import app; app.main()"
    environment = {**kept, **settings, "NO_PROXY": "*"}
    server = psutil.Popen([sys.executable, "-c", script], cwd=folder, env=environment)
    address = f"http://127.0.0.1:{port}/"
    try:
        deadline = time.monotonic() + WAIT
        while True:
            try:
                urllib.request.urlopen(address).close()
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < deadline, "the page did not start"
                time.sleep(0.2)
        yield address, server
    finally:
        server.terminate()
        server.wait(WAIT)


@pytest.fixture(scope="module")
def page(folder, tmp_path_factory):
    with serve(folder, tmp_path_factory.mktemp("uploads")) as (address, _):
        yield address


@pytest.fixture
def browser(tmp_path):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    heard = write_recording(tmp_path / "microphone.wav", 48_000)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}", f"--use-file-for-fake-audio-capture={heard}"):
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path / "downloads")})
    driver = webdriver.Chrome(options, Service(DRIVER))
    yield driver
    driver.save_screenshot(str(tmp_path / "page.png"))
    driver.quit()


def find(browser, selector: str):
    """The first element shown, or `None`."""
    from selenium.webdriver.common.by import By

    return next((e for e in browser.find_elements(By.CSS_SELECTOR, selector) if e.is_displayed()), None)


def wait_for(what):
    """Ask again until the answer is true; elements may be replaced between two looks, or covered while they load."""
    from selenium.common.exceptions import ElementClickInterceptedException, StaleElementReferenceException

    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        try:
            if answer := what():
                return answer
        except (StaleElementReferenceException, ElementClickInterceptedException):
            pass
        time.sleep(0.1)
    raise AssertionError("waited in vain")


def upload(browser, page: str, recording: Path, until: str | None = r"\d+ speaker|error: ") -> str | None:
    """Upload a recording, start, and wait until the summary begins with `until`, if anything; gives its text."""
    from selenium.webdriver.common.by import By

    browser.get(page)
    wait_for(lambda: browser.find_elements(By.CSS_SELECTOR, "input[type=file]"))[0].send_keys(str(recording))
    wait_for(lambda: find(browser, "[aria-label='Clear']") or find(browser, "[title='Clear']"))
    find(browser, "#start").click()

    def answered() -> str | None:
        shown = find(browser, "#summary")
        text = shown.text if shown else ""
        return text if re.match(until, text) else None  # not yet while it says how long it has taken

    return wait_for(answered) if until else None


def assert_it_fits(browser):
    """On a telephone and on a desk: nothing is wider than the screen, the table included."""
    for width in (390, 1280):
        metrics = {"width": width, "height": 1300, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        wait_for(lambda: browser.execute_script(FITS))


def downloaded(directory: Path, name: str) -> Path:
    return wait_for(lambda: (directory / name).is_file() and directory / name)


@needs_browser
def test_a_recording_is_uploaded_seen_heard_and_downloaded(browser, page, tmp_path):
    summary = upload(browser, page, write_recording(tmp_path / "a call.wav"))
    assert summary == "2 speakers in 3 segments of 0:15"
    rows = wait_for(lambda: find(browser, "#timeline .timeline") and find(browser, "#timeline .timeline").text)
    assert rows.split()[:2] == ["SPEAKER_00", "SPEAKER_01"]
    assert rows.split()[2:] == ["0:00", "0:05", "0:10", "0:15"]  # as long as the recording, not as its speech

    wait_for(lambda: find(browser, "[data-testid='cell-1-2']")).click()
    wait_for(lambda: "SPEAKER_01, 0:05.0 to 0:09.0" in find(browser, "#sound").text)
    wait_for(lambda: "0:04" in find(browser, "#sound").text)  # the excerpt is as long as the segment
    assert_it_fits(browser)

    for suffix in ("rttm", "srt", "json"):
        find(browser, f"#{suffix}").click()
        downloaded(tmp_path / "downloads", f"a call.{suffix}")
    (turns,) = read_rttm(tmp_path / "downloads" / "a call.rttm").values()
    found = [(turn.start, turn.end, speaker) for turn, _, speaker in turns.itertracks(yield_label=True)]
    assert found == [
        (pytest.approx(start, abs=0.05), pytest.approx(end, abs=0.05), f"SPEAKER_{speaker:02d}")
        for start, end, speaker in TURNS
    ]
    assert "SPEAKER_01" in (tmp_path / "downloads" / "a call.srt").read_text()
    assert len(json.loads((tmp_path / "downloads" / "a call.json").read_text())["segments"]) == len(TURNS)


def test_live_speakers_keep_row_and_colour_when_out_of_sight(folder):
    script = (
        "import app\n"
        "Segment = app.Segment\n"
        "both = [Segment(0.0, 9.0, 'SPEAKER_00', 0.9), Segment(58.0, 62.0, 'SPEAKER_01', 0.9)]\n"
        "print(app.timeline(both, 60.0, 100.0))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "SPEAKER_00" in done.stdout and done.stdout.count("<i ") == 1
    assert "left:0.000%;width:5.000%;background:#e0662f" in done.stdout  # the second speaker's colour
    assert [done.stdout.count(f">{mark}<") for mark in ("1:00", "1:10", "1:40", "0:50")] == [1, 1, 1, 0]


@needs_browser
def test_a_file_that_is_no_recording_gets_one_line(browser, page, tmp_path):
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"no sound at all" * 100)
    summary = upload(browser, page, bad)
    assert summary == "error: bad.wav: not a recording that FFmpeg knows, or damaged beyond reading"
    assert find(browser, "#timeline .timeline") is None
    assert not find(browser, "#rttm").is_enabled()


@needs_browser
def test_speakers_are_seen_live(browser, page):
    from selenium.webdriver.common.by import By

    browser.get(page)
    wait_for(lambda: browser.find_elements(By.CSS_SELECTOR, "button[role=tab]"))

    def open_live():
        next(tab for tab in browser.find_elements(By.CSS_SELECTOR, "button[role=tab]") if tab.text == "Live").click()
        return find(browser, "#what-live-does")

    assert "about a second" in wait_for(open_live).text
    wait_for(lambda: find(browser, ".record-button, button.record")).click()
    wait_for(lambda: find(browser, "#now") and "SPEAKER_01" in find(browser, "#now").text)
    assert "SPEAKER_00" in find(browser, "#live-timeline").text


def test_the_folder_needs_no_torch(folder):
    """Neither to import nor to answer; what it needs is in its requirements.txt."""
    script = (
        "import sys; sys.modules.update({m: None for m in ('torch', 'transformers', 'datasets', 'matplotlib')})\n"
        "import app\n"
        "print([answer[0] for answer in app.speakers_of_file(sys.argv[1], '1')][-1])\n"
    )
    recording = write_recording(folder.parent / "tones.wav")
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "FAST_DIARIZATION_MODEL")}
    done = subprocess.run(
        [sys.executable, "-c", script, recording], cwd=folder, env=kept, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "**1 speaker**" in done.stdout


def test_assembling_names_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match="has no model.onnx; run python export.py"):
        assemble(tmp_path, tmp_path / "space")
    model = write_model(tmp_path / "model")
    with pytest.raises(ValueError, match="holds other files"):
        assemble(model, model)
