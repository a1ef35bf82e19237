"""Live diarization over a WebSocket: what comes back amounts to the timeline; what cannot be is told and closed."""

import importlib
import json

import numpy as np
import pytest
import soundfile
from two_tones import TURNS, write_model, write_recording

from modeling.events_fast_diarization import replay

testclient = pytest.importorskip("fastapi.testclient", reason="needs fastapi, which comes with gradio")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAST_DIARIZATION_MODEL", str(write_model(tmp_path_factory.mktemp("model"))))
        patch.delenv("FAST_DIARIZATION_VOICES", raising=False)
        yield importlib.import_module("space.live_socket")


def test_samples_in_events_out(server, tmp_path):
    waveform, _ = soundfile.read(write_recording(tmp_path / "call.wav"), dtype="int16")
    events = []
    with testclient.TestClient(server.app).websocket_connect("/live") as socket:
        for part in np.array_split(waveform, 40):
            socket.send_bytes(part.astype("<i2").tobytes())
        socket.send_text("end")
        while not events or events[-1]["event"] != "end":
            events.append(json.loads(socket.receive_text()))
    found = replay(events)
    assert [int(s.speaker[-2:]) for s in found] == [speaker for *_, speaker in TURNS]
    np.testing.assert_allclose([(s.start, s.end) for s in found], [turn[:2] for turn in TURNS], atol=0.05)
    assert server.app.state.streams == 0


@pytest.mark.parametrize("message", [{"bytes": b"odd"}, {"text": "start"}])
def test_what_is_no_sound_closes_the_socket(server, message):
    with testclient.TestClient(server.app).websocket_connect("/live") as socket:
        socket.send({"type": "websocket.receive", **message})
        closed = socket.receive()
    assert (closed["type"], closed["code"]) == ("websocket.close", server.UNSUPPORTED)


def test_no_more_streams_than_there_are_places(server, monkeypatch):
    monkeypatch.setattr(server, "MOST_STREAMS", 0)
    with testclient.TestClient(server.app).websocket_connect("/live") as socket:
        assert socket.receive()["code"] == server.TRY_AGAIN


def test_a_place_is_not_held_in_silence(server, monkeypatch):
    monkeypatch.setattr(server, "SILENT_SECONDS", 0.2)
    with testclient.TestClient(server.app).websocket_connect("/live") as socket:
        closed = socket.receive()
    assert (closed["code"], closed["reason"]) == (server.GIVEN_UP, "nothing was sent or taken for 0.2 s")
    assert server.app.state.streams == 0
