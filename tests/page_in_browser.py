"""The page served from the folder that a Space would be, and a browser to look at it."""

import contextlib
import os
import re
import shutil
import socket
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
from two_tones import write_model, write_recording

from space.assemble import assemble

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
    "--autoplay-policy=no-user-gesture-required",
)
TELEPHONE = {"deviceMetrics": {"width": 390, "height": 844, "pixelRatio": 3, "touch": True, "mobile": True}}
WAIT = 180


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
    ends = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # ignored behind a shell's &
    script = f"{ends}; from space import jobs; vars(jobs).update({limits}); import app; app.main()"
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


@contextlib.contextmanager
def started(directory: Path, **emulated):
    """A browser whose microphone hears the two tones; with `mobileEmulation` if given."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    heard = write_recording(directory / "microphone.wav", 48_000)
    for flag in (*FLAGS, f"--user-data-dir={directory / 'profile'}", f"--use-file-for-fake-audio-capture={heard}"):
        options.add_argument(flag)
    for name, value in emulated.items():
        options.add_experimental_option(name, value)
    driver = webdriver.Chrome(options, Service(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def one_browser(tmp_path_factory):
    with started(tmp_path_factory.mktemp("browser")) as driver:
        yield driver


@pytest.fixture
def browser(one_browser, tmp_path):
    """The browser of the module, with downloads of this test alone, and no other tabs than it began with."""
    first = one_browser.current_window_handle
    keep_downloads(one_browser, tmp_path / "downloads")
    yield one_browser
    one_browser.save_screenshot(str(tmp_path / "page.png"))
    for other in set(one_browser.window_handles) - {first}:
        one_browser.switch_to.window(other)
        one_browser.close()
    one_browser.switch_to.window(first)
    one_browser.get("about:blank")


def keep_downloads(browser, directory: Path) -> None:
    where = {"behavior": "allow", "downloadPath": str(directory)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", where)


def find(browser, selector: str):
    """The first element shown, or `None`."""
    from selenium.webdriver.common.by import By

    return next((e for e in browser.find_elements(By.CSS_SELECTOR, selector) if e.is_displayed()), None)


def wait_for(what):
    """Ask again until the answer is true; elements may be replaced between two looks, or covered while they load."""
    from selenium.common.exceptions import (
        ElementClickInterceptedException,
        NoSuchShadowRootException,
        StaleElementReferenceException,
    )

    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        try:
            if answer := what():
                return answer
        except (StaleElementReferenceException, ElementClickInterceptedException, NoSuchShadowRootException):
            pass
        time.sleep(0.1)
    raise AssertionError("waited in vain")


def text_of(browser, selector: str) -> str:
    shown = find(browser, selector)
    return shown.text if shown else ""


def give_file(browser, selector: str, file: Path) -> None:
    """To the input of files within an element of the page."""
    from selenium.webdriver.common.by import By

    wait_for(lambda: browser.find_elements(By.CSS_SELECTOR, f"{selector} input[type=file]"))[0].send_keys(str(file))


def upload(browser, page: str, recording: Path, until: str | None = r"\d+ speaker|error: ") -> str | None:
    """Upload a recording, start, and wait until the summary begins with `until`, if anything; gives its text."""
    browser.get(page)
    give_file(browser, "#recording", recording)
    wait_for(lambda: find(browser, "[aria-label='Clear']") or find(browser, "[title='Clear']"))
    find(browser, "#start").click()

    def said() -> str | None:
        text = text_of(browser, "#summary")
        return text if re.match(until, text) else None  # not yet while it says how long it has taken

    return wait_for(said) if until else None


def downloaded(directory: Path, name: str) -> Path:
    return wait_for(lambda: (directory / name).is_file() and directory / name)
