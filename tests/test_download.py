"""Recordings at web addresses, from a server of this machine with its faults."""

import http.server
import threading
from itertools import repeat

import pytest
import torch
from audio_files import speech_like, wav

from modeling import FastDiarizationConfig, FastDiarizationForAudioFrameClassification, download_fast_diarization
from modeling.audio_fast_diarization import AudioError
from modeling.download_fast_diarization import download, is_address
from modeling.pipeline_fast_diarization import FastDiarizationPipeline

WAV = wav(speech_like(2))


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.partition("?")[0]
        self.send_response({"/gone.wav": 404, "/moved.wav": 302, "/to_file.wav": 302}.get(name, 200))
        if name == "/moved.wav":
            self.send_header("Location", "/call.wav")
        if name == "/to_file.wav":
            self.send_header("Location", "file:///etc/passwd")
        if name == "/call.wav":
            self.send_header("Content-Length", str(len(WAV)))
        if name == "/cut.wav":
            self.send_header("Content-Length", str(2 * len(WAV)))
        self.end_headers()
        try:
            for piece in repeat(WAV) if name == "/radio.wav" else [b"<html>" if name == "/page.wav" else WAV]:
                self.wfile.write(piece)
        except OSError:
            pass

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def address():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("name", ["call.wav", "moved.wav", "call.wav?signature=secret", "no_length.wav"])
def test_what_is_fetched_is_the_file(address, name):
    with download(f"{address}/{name}") as file:
        assert file.read() == WAV and "secret" not in file.name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gone.wav?token=secret", "Not Found"),
        ("cut.wav", "bytes came"),
        ("to_file.wav", "not allowed"),
        ("radio.wav", "no end after"),
        ("a b\n.wav", "control characters"),
    ],
)
def test_what_cannot_be_fetched_is_one_line(address, name, reason, monkeypatch):
    monkeypatch.setattr(download_fast_diarization, "MOST_BYTES", 1e6)
    with pytest.raises(AudioError, match=reason) as error:
        download(f"{address}/{name}")
    assert "secret" not in str(error.value) and "\n" not in str(error.value)


def test_nobody_at_an_address_is_one_line():
    with pytest.raises(AudioError, match=r"http://127.0.0.1:9/call.wav: cannot be fetched \(.*refused"):
        download("http://127.0.0.1:9/call.wav")
    assert not is_address("call.wav") and not is_address(b"http://") and is_address("HTTPS://host/call.wav")


def test_the_pipeline_takes_addresses(address, tmp_path):
    torch.manual_seed(0)
    config = FastDiarizationConfig(hidden_size=32, onset=0.2, offset=0.1)
    pipe = FastDiarizationPipeline(model=FastDiarizationForAudioFrameClassification(config))
    (tmp_path / "call.wav").write_bytes(WAV)
    expected = pipe(tmp_path / "call.wav")
    call = f"{address}/call.wav"
    assert expected and pipe(call) == expected and pipe([call, call], num_workers=1) == [expected, expected]
    with pytest.raises(AudioError, match="page.wav: not a recording"):
        pipe(f"{address}/page.wav")
    assert pipe([f"{address}/gone.wav", call], on_error="skip") == [None, expected]
    with pytest.raises(AudioError, match="No such file"):
        pipe({"path": call})
