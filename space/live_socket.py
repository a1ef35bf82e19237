"""Live diarization over a WebSocket: sound in, events out, for programs of your own.

    uvicorn space.live_socket:app                                # ws://127.0.0.1:8000/live
    FAST_DIARIZATION_MODEL=runs/demo/model uvicorn space.live_socket:app

Binary messages are samples, 16 bit little-endian mono at 16 kHz, as many at a time as come together; the text `end`
ends the stream. What comes back is one event a message, JSON as docs/LIVE.md describes it. With
FAST_DIARIZATION_VOICES, a file of known voices, people who are in it have their names. A stream on which nothing is
sent or taken for a minute is closed.
"""

import asyncio
import json
import os
from collections.abc import Awaitable

import numpy as np
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from starlette.concurrency import run_in_threadpool

from diarization.backends import ModelError, open_network
from modeling.enrolment_fast_diarization import KnownVoices, VoicesError
from modeling.events_fast_diarization import LiveEvents
from modeling.streaming_fast_diarization import StreamingDiarizer

MOST_STREAMS = 8
"""At once; further ones are closed with code 1013, try again later."""
TRY_AGAIN, UNSUPPORTED, GIVEN_UP = 1013, 1003, 1008
SILENT_SECONDS = 60.0

MODEL = os.environ.get("FAST_DIARIZATION_MODEL", "pretrained/lightweight-cnn")
VOICES = os.environ.get("FAST_DIARIZATION_VOICES")
try:
    NETWORK, SETTINGS = open_network(MODEL)
    KNOWN = KnownVoices.load(VOICES, NETWORK) if VOICES else None
except (ModelError, VoicesError) as error:
    raise SystemExit(f"error: {error}") from None
app = FastAPI()
app.state.streams = 0


@app.websocket("/live")
async def live(socket: WebSocket) -> None:
    await socket.accept()
    if app.state.streams == MOST_STREAMS:
        await socket.close(TRY_AGAIN, f"{MOST_STREAMS} streams are under way; try again later")
        return
    app.state.streams += 1
    try:
        await _answer(socket, LiveEvents(StreamingDiarizer(NETWORK, SETTINGS, voices=KNOWN)))
    except TimeoutError:
        await socket.close(GIVEN_UP, f"nothing was sent or taken for {SILENT_SECONDS:g} s")
    except WebSocketDisconnect:
        pass
    finally:
        app.state.streams -= 1


async def _answer(socket: WebSocket, events: LiveEvents) -> None:
    while (message := await _soon(socket.receive()))["type"] == "websocket.receive":
        sound, text = message.get("bytes"), message.get("text")
        if text == "end":
            for event in await run_in_threadpool(events.finish):
                await _soon(socket.send_text(json.dumps(event)))
            await socket.close()
            return
        if sound is None or len(sound) % 2:
            await socket.close(UNSUPPORTED, "expected 16 bit samples in binary messages, or the text end")
            return
        samples = np.frombuffer(sound, "<i2").astype(np.float32) / 32768
        for event in await run_in_threadpool(events.push, samples):
            await _soon(socket.send_text(json.dumps(event)))


def _soon(action: Awaitable) -> Awaitable:
    return asyncio.wait_for(action, SILENT_SECONDS)
