"""One visitor's microphone."""

from threading import Lock

import av
import numpy as np

from modeling.enrolment_fast_diarization import KnownVoices
from modeling.events_fast_diarization import LiveEvents
from modeling.settings_fast_diarization import SAMPLING_RATE, LinkingSettings
from modeling.streaming_fast_diarization import StreamingDiarizer
from modeling.windows_fast_diarization import Network
from space.hypothesis import Hypothesis

LOWEST_RATE, HIGHEST_RATE = 8_000, 384_000


class Live:
    """What was said so far."""

    def __init__(self, network: Network, settings: LinkingSettings, voices: KnownVoices | None = None):
        self.events = LiveEvents(StreamingDiarizer(network, settings, voices=voices))
        self.resampler, self.sampling_rate = None, 0
        self.seconds = 0.0
        self.ended, self.lock = False, Lock()

    def hear(self, sampling_rate: int, samples: np.ndarray) -> None:
        """16 bit samples, (samples,) or (samples, channels), at the rate of the browser, which may change.

        Raises:
            ValueError: no microphone has that rate.
        """
        if not LOWEST_RATE <= sampling_rate <= HIGHEST_RATE:
            raise ValueError(f"a microphone at {sampling_rate} Hz cannot be used; choose another one in the browser")
        with self.lock:
            if not self.ended:
                self._hear(sampling_rate, samples)

    def end(self) -> None:
        """Decide what is still open; what is heard later is left out."""
        with self.lock:
            if not self.ended:
                self.ended = True
                self.events.finish()

    def hypothesis(self) -> Hypothesis:
        """What is known by now; a turn may go to another speaker later."""
        with self.lock:
            return Hypothesis.of("live", self.seconds, self.events.segments)

    def _hear(self, sampling_rate: int, samples: np.ndarray) -> None:
        if sampling_rate != self.sampling_rate:
            self._take(self.resampler.resample(None) if self.resampler else [])
            self.resampler, self.sampling_rate = av.AudioResampler("fltp", "mono", SAMPLING_RATE), sampling_rate
        mono = samples.reshape(len(samples), -1).mean(axis=1, dtype=np.float32) / 32768
        frame = av.AudioFrame.from_ndarray(mono[None], "fltp", "mono")
        frame.sample_rate = sampling_rate
        self._take(self.resampler.resample(frame))
        self.seconds += len(mono) / sampling_rate

    def _take(self, frames: list[av.AudioFrame]) -> None:
        for frame in frames:
            self.events.push(frame.to_ndarray()[0])
