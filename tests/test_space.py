"""The page in a real browser: upload, seek, names, words, live, a telephone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from page_in_browser import (  # noqa: F401 (fixtures)
    TELEPHONE,
    browser,
    downloaded,
    find,
    folder,
    give_file,
    keep_downloads,
    needs_browser,
    one_browser,
    serve,
    started,
    text_of,
    upload,
    wait_for,
)
from two_tones import SECONDS, TURNS, write_model, write_recording

from data.rttm import read_rttm
from diarization.backends import open_network
from modeling.counting_fast_diarization import Speaker
from modeling.enrolment_fast_diarization import KnownVoices, fingerprint_of
from space.assemble import assemble

pytestmark = pytest.mark.page

FITS = """
const wide = (element) => element.scrollWidth > element.clientWidth
const player = document.querySelector("#timeline diarized-recording").shadowRoot
return ![document.documentElement, ...player.querySelectorAll(".stage, .strip, .list, .name")].some(wide)
"""
DROP = """
const dataTransfer = new DataTransfer();
dataTransfer.items.add(new File([new Uint8Array(arguments[0])], "call.mkv", {type: "video/x-matroska"}));
const drop = new DragEvent("drop", {dataTransfer, bubbles: true, cancelable: true});
document.querySelector("#recording .upload-container").dispatchEvent(drop);
"""
REMOVE = ":is({0}) :is([aria-label='Clear'], [title='Clear'], [aria-label='Remove this file'])"
HOSTILE = "<script>document.title = 'owned'</script>"


@pytest.fixture(scope="module")
def page(folder, tmp_path_factory):  # noqa: F811
    with serve(folder, tmp_path_factory.mktemp("uploads")) as (address, _):
        yield address


class Player:
    """What a visitor sees and does in the player."""

    def __init__(self, browser, tab: str = ""):  # noqa: F811
        self.browser, self.place = browser, f"#{tab}timeline diarized-recording"
        self.host = wait_for(lambda: find(browser, self.place))

    def all(self, selector: str) -> list:
        from selenium.webdriver.common.by import By

        return find(self.browser, self.place).shadow_root.find_elements(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        return [element.text for element in self.all(selector)]

    def get(self, expression: str):
        return self.browser.execute_script(f"return arguments[0].{expression}", find(self.browser, self.place))

    def click(self, element, fraction: float = 0.5) -> None:
        """At a fraction of its width, as a person does."""
        from selenium.webdriver import ActionChains

        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        across = round((fraction - 0.5) * element.size["width"])
        ActionChains(self.browser).move_to_element_with_offset(element, across, 0).click().perform()

    def names(self) -> list[str]:
        return self.texts(".heading .name")

    def open_name(self, speaker: str) -> None:
        self.click(next(e for e in self.all(".heading .name") if e.text == speaker))
        wait_for(lambda: self.all(".renaming input"))

    def rename(self, speaker: str, name: str) -> None:
        self.open_name(speaker)
        (field,) = self.all(".renaming input")
        field.clear()
        field.send_keys(f"{name}\n")


def choose(element, text: str) -> None:
    from selenium.webdriver.support.select import Select

    Select(element).select_by_visible_text(text)


def download(browser, suffix: str, directory: Path, tab: str = "") -> str:  # noqa: F811
    """The text of a download made now."""
    keep_downloads(browser, directory)
    find(browser, f"#{tab}{suffix}").click()
    name = "live" if tab else "a call"
    return downloaded(directory, f"{name}.{suffix}").read_text(encoding="utf-8")


@needs_browser
def test_a_recording_is_uploaded_seen_sought_and_downloaded(browser, page, tmp_path):  # noqa: F811
    browser.get(page)
    wait_for(lambda: find(browser, "#start"))
    assert not find(browser, "#timeline, #rttm, #stop, .downloads")  # nothing empty before there is a hypothesis
    summary = upload(browser, page, write_recording(tmp_path / "a call.wav"))
    assert summary == "2 speakers in 3 segments of 0:15"
    player = Player(browser)
    assert player.names() == ["SPEAKER_00", "SPEAKER_01"]
    assert player.texts(".heading .facts") == ["67 % \u00b7 0:08 \u00b7 2 turns", "33 % \u00b7 0:04 \u00b7 1 turn"]
    assert player.texts(".line b") == ["SPEAKER_00", "SPEAKER_01", "SPEAKER_00"]
    wait_for(lambda: abs((player.get("sound.duration") or 0) - SECONDS) < 0.05)

    player.click(player.all(".lane .inner i")[2])  # the middle of SPEAKER_01's turn, 5 to 9 s
    wait_for(lambda: player.get("sound.currentTime") == pytest.approx(7.0, abs=0.1))
    player.click(player.all(".wave")[0], 10 / 15)
    wait_for(lambda: player.get("sound.currentTime") == pytest.approx(10.0, abs=0.1))
    player.click(player.all(".play")[0])
    wait_for(lambda: player.get("sound.currentTime") > 10.2)
    begun = player.get("stage.style.getPropertyValue('--at')")
    wait_for(lambda: float(player.get("stage.style.getPropertyValue('--at')")) > float(begun))  # the cursor moves
    player.click(player.all(".play")[0])
    wait_for(lambda: player.get("sound.paused"))

    (turns,) = read_rttm(written(tmp_path, download(browser, "rttm", tmp_path / "1"))).values()
    found = [(turn.start, turn.end, speaker) for turn, _, speaker in turns.itertracks(yield_label=True)]
    assert found == [
        (pytest.approx(start, abs=0.05), pytest.approx(end, abs=0.05), f"SPEAKER_{speaker:02d}")
        for start, end, speaker in TURNS
    ]
    assert len(json.loads(download(browser, "json", tmp_path / "1"))["segments"]) == len(TURNS)
    for suffix in ("srt", "vtt", "txt"):
        assert "SPEAKER_01" in download(browser, suffix, tmp_path / "1")


def written(directory: Path, text: str) -> Path:
    (directory / "text").write_text(text, encoding="utf-8")
    return directory / "text"


@needs_browser
def test_names_merges_and_splits_are_in_the_downloads(browser, page, tmp_path):  # noqa: F811
    def speakers(directory: str) -> list[str]:
        return [s["speaker"] for s in json.loads(download(browser, "json", tmp_path / directory))["segments"]]

    upload(browser, page, write_recording(tmp_path / "a call.wav"))
    player = Player(browser)
    player.rename("SPEAKER_01", HOSTILE)
    wait_for(lambda: player.names() == ["SPEAKER_00", HOSTILE])
    assert speakers("renamed") == ["SPEAKER_00", HOSTILE, "SPEAKER_00"]
    assert "&lt;script&gt;" in download(browser, "vtt", tmp_path / "renamed")
    assert browser.title == "Fast Diarization"

    player.click(player.all(".lane .inner i")[1])  # the last turn, of SPEAKER_00
    wait_for(lambda: len(player.all(".strip select")) == 2)
    choose(player.all(".strip select")[1], "a new speaker")
    player.click(player.all(".strip .apply")[0])
    wait_for(lambda: player.names() == ["SPEAKER_00", HOSTILE, "SPEAKER_01"])
    assert speakers("split") == ["SPEAKER_00", HOSTILE, "SPEAKER_01"]

    player.open_name("SPEAKER_01")
    choose(player.all(".merge")[0], HOSTILE)
    wait_for(lambda: player.names() == ["SPEAKER_00", HOSTILE])
    assert speakers("merged") == ["SPEAKER_00", HOSTILE, HOSTILE]
    assert text_of(browser, "#summary") == "2 speakers in 3 segments of 0:15"

    for left in (3, 2, 2):
        next(e for e in player.all(".toolbar button") if e.text == "Undo").click()
        wait_for(lambda left=left: len(player.names()) == left)
    wait_for(lambda: "Undo" not in player.texts(".toolbar button"))
    assert speakers("undone") == ["SPEAKER_00", "SPEAKER_01", "SPEAKER_00"]


@needs_browser
def test_words_get_speakers_and_seek(browser, page, tmp_path):  # noqa: F811
    texts = (
        (0.5, 1.0, "Hello."),
        (5.5, 6.5, HOSTILE.replace(" ", "")),
        (6.5, 7.0, "{{value}}"),
        (11.0, 12.0, "${1+1}"),
    )
    words = [{"word": text, "start": start, "end": end} for start, end, text in texts]
    (tmp_path / "asr.json").write_text(json.dumps(words))
    (tmp_path / "bad.json").write_text("{}")
    upload(browser, page, write_recording(tmp_path / "a call.wav"))
    find(browser, "#optional button").click()
    give_file(browser, "#words", tmp_path / "bad.json")
    wait_for(lambda: text_of(browser, "#about-words").startswith("error: bad.json: "))
    find(browser, REMOVE.format("#words")).click()
    wait_for(lambda: text_of(browser, "#about-words") == "")
    give_file(browser, "#words", tmp_path / "asr.json")
    wait_for(lambda: text_of(browser, "#about-words") == "4 words in asr.json")
    player = Player(browser)
    wait_for(lambda: player.texts(".word") == [text for _, _, text in texts])
    assert player.texts(".line b") == ["SPEAKER_00", "SPEAKER_01", "SPEAKER_00"]
    assert browser.title == "Fast Diarization"
    player.click(player.all(".word")[2])
    wait_for(lambda: player.get("sound.currentTime") == pytest.approx(6.5, abs=0.01))
    wait_for(lambda: player.texts(".word.now") == ["{{value}}"])
    player.rename("SPEAKER_01", "Ben")
    wait_for(lambda: player.texts(".line b") == ["SPEAKER_00", "Ben", "SPEAKER_00"])
    assert "[0:06] Ben: " in download(browser, "txt", tmp_path / "downloads")


@needs_browser
@pytest.mark.parametrize("dropped", [False, True])
def test_a_video_is_a_recording_too(dropped, browser, page, tmp_path):  # noqa: F811
    video = write_recording(tmp_path / "call.wav").rename(tmp_path / "call.mkv")  # a video by its name
    browser.get(page)
    wait_for(lambda: find(browser, "#start"))
    if dropped:
        browser.execute_script(DROP, list(video.read_bytes()))
    else:
        give_file(browser, "#recording", video)
    wait_for(lambda: find(browser, REMOVE.format("#recording")))
    find(browser, "#start").click()
    wait_for(lambda: text_of(browser, "#summary") == "2 speakers in 3 segments of 0:15")


@needs_browser
def test_a_file_that_is_no_recording_gets_one_line_that_goes_with_it(browser, page, tmp_path):  # noqa: F811
    bad = tmp_path / "_bad_file_.wav"
    bad.write_bytes(b"no sound at all" * 100)
    summary = upload(browser, page, bad)
    assert summary == "error: _bad_file_.wav: not a recording that FFmpeg knows, or damaged beyond reading"
    wait_for(lambda: not find(browser, "#timeline, #rttm, #stop"))
    find(browser, REMOVE.format("#recording")).click()
    wait_for(lambda: text_of(browser, "#summary") == "")


@needs_browser
def test_it_fits_a_telephone(folder, page, tmp_path):  # noqa: F811
    with started(tmp_path, mobileEmulation=TELEPHONE) as telephone:
        upload(telephone, page, write_recording(tmp_path / "a call.wav"))
        player = Player(telephone)
        assert telephone.execute_script("return [innerWidth, devicePixelRatio]") == [390, 3]
        wait_for(lambda: telephone.execute_script(FITS))
        places = [element.rect for element in (*player.all(".wave"), *player.all(".inner"), *player.all(".axis"))]
        assert len({(round(place["x"], 1), round(place["width"], 1)) for place in places}) == 1  # one scale
        assert places[0]["width"] > 300
        player.click(player.all(".lane .inner i")[2])
        wait_for(lambda: player.get("sound.currentTime") == pytest.approx(7.0, abs=0.2))
        wait_for(lambda: telephone.execute_script(FITS))
        player.click(next(e for e in player.all(".toolbar button") if e.text == "+"))
        wait_for(lambda: player.all(".inner")[0].rect["width"] > 1.9 * places[0]["width"])
        wait_for(lambda: telephone.execute_script(FITS.replace(".stage, ", "")))


@needs_browser
def test_speakers_are_seen_live_and_the_history_stays(browser, page, tmp_path):  # noqa: F811
    from selenium.webdriver.common.by import By

    browser.get(page)
    wait_for(lambda: browser.find_elements(By.CSS_SELECTOR, "button[role=tab]"))

    def open_live():
        next(tab for tab in browser.find_elements(By.CSS_SELECTOR, "button[role=tab]") if tab.text == "Live").click()
        return find(browser, "#what-live-does")

    assert "about a second" in wait_for(open_live).text
    wait_for(lambda: find(browser, ".record-button, button.record")).click()
    wait_for(lambda: "Speaking now: SPEAKER_01" in text_of(browser, "#now"))
    player = Player(browser, "live-")
    wait_for(lambda: player.names() == ["SPEAKER_00", "SPEAKER_01"])
    assert not find(browser, "#live-json")
    wait_for(lambda: find(browser, ".stop-button, button.stop")).click()
    wait_for(lambda: text_of(browser, "#now").startswith("2 speakers in "))
    wait_for(lambda: set(player.texts(".line b")) == {"SPEAKER_00", "SPEAKER_01"})
    player.rename("SPEAKER_01", "Ben")
    wait_for(lambda: player.names() == ["SPEAKER_00", "Ben"])
    found = json.loads(download(browser, "json", tmp_path / "1", "live-"))["segments"]
    assert {s["speaker"] for s in found} == {"SPEAKER_00", "Ben"}


@needs_browser
def test_the_example_is_a_click(browser, page):  # noqa: F811
    browser.get(page)
    wait_for(lambda: find(browser, "#example")).click()
    wait_for(lambda: find(browser, REMOVE.format("#recording")))
    find(browser, "#start").click()
    wait_for(lambda: "speaker" in text_of(browser, "#summary"))  # whatever the tones of the network find in it
    assert Player(browser).get("data.end") > 10


def write_voices(folder: Path, file: Path, **people: int) -> Path:  # noqa: F811
    """Known voices whose embeddings are those of the tones 0 and 1."""
    network, _ = open_network(str(folder / "pretrained/lightweight-cnn/model.onnx"))
    vectors = {name: Speaker(np.eye(2, dtype=np.float32)[tone], 10.0) for name, tone in people.items()}
    KnownVoices(fingerprint_of(network), vectors).save(file)
    return file


@needs_browser
def test_known_voices_have_their_names(browser, folder, page, tmp_path):  # noqa: F811
    browser.get(page)
    wait_for(lambda: find(browser, "#optional button")).click()
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    give_file(browser, "#voices", tmp_path / "bad.safetensors")
    wait_for(lambda: text_of(browser, "#about-voices").startswith("error: bad.safetensors: not a file of known voices"))
    find(browser, REMOVE.format("#voices")).click()
    wait_for(lambda: text_of(browser, "#about-voices") == "")
    give_file(browser, "#voices", write_voices(folder, tmp_path / "team.safetensors", **{"<b>Ben</b>": 1}))
    wait_for(lambda: text_of(browser, "#about-voices") == "Known: <b>Ben</b>")
    give_file(browser, "#recording", write_recording(tmp_path / "a call.wav"))
    wait_for(lambda: find(browser, REMOVE.format("#recording")))
    find(browser, "#start").click()
    player = Player(browser)
    assert sorted(player.names()) == ["<b>Ben</b>", "SPEAKER_00"]
    assert player.texts(".line b") == ["SPEAKER_00", "<b>Ben</b>", "SPEAKER_00"]


def test_known_voices_have_their_names_live_too(folder, tmp_path):  # noqa: F811
    write_voices(folder, tmp_path / "team.safetensors", Ben=1)
    script = """
import sys, soundfile, numpy as np, app
samples, rate = soundfile.read(sys.argv[1], dtype="int16")
live = None
for piece in np.split(samples, range(8000, len(samples), 8000)):
    _, now, live = app.speakers_live((rate, piece), live, sys.argv[2])
live.end()
print([s.speaker for s in live.hypothesis().segments])
"""
    command = [sys.executable, "-c", script, write_recording(tmp_path / "call.wav"), tmp_path / "team.safetensors"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['SPEAKER_00', 'Ben', 'SPEAKER_00']"


def test_a_number_that_is_unsure_is_called_so(folder):  # noqa: F811
    script = """
import app
count, segment = app.CountEstimate, app.Segment(0.0, 4.0, "SPEAKER_00", 0.9)
for estimate in (count(1, 1, 2), count(1, 1, 1), count(3, 2, 5)):
    print(app.summary(app.Hypothesis.of("call", 9.0, [segment], count=estimate)))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    sure = "**1 speaker** in 1 segment of 0:09"
    assert done.stdout.splitlines() == [
        f"{sure}. Unsure, 2 possible: if you know the number, choose it above.",
        sure,
        f"{sure}. Unsure, 2 or 4 or 5 possible: if you know the number, choose it above.",
    ]


def test_the_folder_needs_no_torch(folder):  # noqa: F811
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
    with pytest.raises(ValueError, match="config.json is not a directory; name a new or empty one"):
        assemble(model, model / "config.json")
