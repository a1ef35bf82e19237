"""What the page plays and draws of a recording."""

from pathlib import Path

import av
import numpy as np

from modeling.audio_fast_diarization import SAMPLING_RATE

PEAK_SAMPLES, MOST_PEAKS = 320, 20_000
LOUD = 0.999
"""The quantile of the peaks that is drawn as full height: a click does not flatten the rest."""


class SoundCopy:
    """A copy in 8 bit mu-law (ITU-T G.711), whatever the recording is in, and its peaks.

    Every browser plays and exactly seeks that at next to no cost, 0.9 MB a minute, and each sound is where the network
    heard it.
    """

    def __init__(self, file: Path):
        self.container = av.open(str(file), "w", format="wav")
        self.stream = self.container.add_stream("pcm_mulaw", rate=SAMPLING_RATE, layout="mono")
        self.loudest: list[np.ndarray] = []

    def hear(self, samples: np.ndarray) -> None:
        """
        Args:
            samples: (samples,) mono 16 kHz that follow; a multiple of `PEAK_SAMPLES`, except the last.
        """
        whole = np.pad(np.abs(samples), (0, -len(samples) % PEAK_SAMPLES))
        self.loudest.append(whole.reshape(-1, PEAK_SAMPLES).max(axis=1))
        frame = av.AudioFrame.from_ndarray((samples.clip(-1, 1) * 32767).astype(np.int16)[None], "s16", "mono")
        frame.sample_rate = SAMPLING_RATE
        self.container.mux(self.stream.encode(frame))

    def close(self) -> None:
        """Write what is left and the header."""
        self.container.mux(self.stream.encode(None))
        self.container.close()

    def peaks(self) -> bytes:
        """At most `MOST_PEAKS`, evenly spaced, 255 the loudest."""
        peaks = np.concatenate([np.zeros(0, np.float32), *self.loudest])
        each = -(-len(peaks) // MOST_PEAKS) or 1
        peaks = np.pad(peaks, (0, -len(peaks) % each)).reshape(-1, each).max(axis=1, initial=0.0)
        loud = np.quantile(peaks, LOUD) if len(peaks) else 0.0
        return (255 * (peaks / max(loud, 1e-4)).clip(0, 1)).astype(np.uint8).tobytes()
