"""Batches of windows cut out of annotated conversations, addressed like those of simulated ones (`streaming.py`).

    recordings --seeded order--> blocks, read side by side --> pools of windows --seeded order--> batches

Windows are taken as they are, overlaps and all. All that is changed is their level, by up to 12 dB.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, islice

import numpy as np

from data.acoustics import CLEAN
from data.annotations import Conversation
from data.conversations import speaker_number
from data.excerpts import Excerpts, choose_excerpts, cut_excerpts
from data.streaming import ConversationStream, logger
from modeling.audio_fast_diarization import AudioError, AudioWarning
from modeling.settings_fast_diarization import FRAME_SAMPLES, SAMPLING_RATE

GAIN_DB = 12.0
POOL_SECONDS = 1500.0
"""Of windows that are shuffled together: 96 MB."""
TIMES_HEARD = 4.0
"""Each second of a recording is in so many of the windows drawn from it, in the mean."""


class AnnotatedStream(ConversationStream):
    """Batches of windows of annotated conversations, endless.

    The batches have the fields of `ConversationStream`'s and `recording_labels` int64 (batch,), because a speaker's
    name holds in one recording only: people of two recordings may be one or two. In windows with more people than
    tracks those who speak most are labelled, as pyannote.audio does; such windows are counted and said.

    Args: those of [`ConversationStream`], with an `AnnotatedConversations`.
    """

    crowded = 0

    def planned(self, block: int, first: int) -> Iterator[tuple[int, Callable[[], dict]]]:
        frames = round(self.seconds_of(block) * SAMPLING_RATE) // FRAME_SAMPLES
        size = self.config.batch_size
        most = max(size, round(POOL_SECONDS * SAMPLING_RATE / (frames * FRAME_SAMPLES)))
        windows = _in_turns([self._windows_of(block, unit, frames) for unit in self.units_of(block)])
        left, done = [], 0
        for number in count():
            pool = left + list(islice(windows, most - len(left)))
            rng = np.random.default_rng([self.config.seed, 1, block, number])
            pool = [pool[i] for i in rng.permutation(len(pool))]
            last = len(pool) < most
            if last and pool and not done and len(pool) < size:
                pool = [pool[i % len(pool)] for i in range(size)]
            batches = len(pool) // size
            for i in range(done, done + batches):
                if i >= first:
                    part = pool[(i - done) * size : (i - done + 1) * size]
                    yield i, partial(self._batch, np.random.default_rng([self.config.seed, 5, block, i]), part)
            done, left = done + batches, pool[batches * size :]
            if last:
                return

    def _batch(self, rng: np.random.Generator, windows: list[tuple]) -> dict:
        waveforms, labels, speakers, recordings = (np.stack(column) for column in zip(*windows))
        if self.config.augmentation != CLEAN:
            gains = 10 ** (rng.uniform(-GAIN_DB, GAIN_DB, len(waveforms)) / 20)
            loudest = np.maximum(np.abs(waveforms).max(axis=1), 1e-9)
            waveforms *= np.minimum(gains, np.maximum(1, 1 / loudest))[:, None].astype(np.float32)
        return {
            "input_values": waveforms,
            "labels": labels,
            "speaker_labels": speakers,
            "recording_labels": recordings,
        }

    def _windows_of(self, block: int, unit: int, frames: int) -> Iterator[tuple]:
        """Waveform, labels, speakers and recording of the windows of a unit, in the order of time."""
        for number, conversation in enumerate(self._conversations(unit)):
            rng = np.random.default_rng([self.config.seed, 4, block, unit, number])
            recording = f"{self.utterances.describe(unit)} {conversation.name}"
            try:
                chosen = choose_excerpts(
                    rng, conversation, frames, self.config.num_speakers, self.config.shares, TIMES_HEARD
                )
                self._count_crowded(chosen, conversation.name)
                names = np.array([*(speaker_number(f"{recording} {name}") for name in chosen.names), -1], np.int64)
                found = 0
                samples = frames * FRAME_SAMPLES
                for waveform in cut_excerpts(conversation.audio, chosen.starts * FRAME_SAMPLES, samples):
                    speakers = names[chosen.speakers[found]]
                    yield waveform, chosen.labels[found], speakers, np.int64(speaker_number(recording))
                    found += 1
                if found < len(chosen.starts):
                    self._skip("references past the end of the audio", conversation.name)
                elif not found:
                    self._skip("shorter than a window", conversation.name)
            except (AudioError, AudioWarning) as error:
                self._skip(str(error).removeprefix("audio: "), conversation.name)
            except ValueError:
                self._skip("references that do not fit the audio", conversation.name)

    def _count_crowded(self, chosen: Excerpts, name: str) -> None:
        before = len(str(self.crowded))
        self.crowded += chosen.crowded
        if len(str(self.crowded)) > before:
            logger.info(
                "%d windows so far with more than %d people, of whom those are labelled who speak most; in %s, %.1f %% "
                "of the speech is of others",
                self.crowded,
                self.config.num_speakers,
                name,
                100 * chosen.left_out,
            )

    def _conversations(self, unit: int) -> Iterator[Conversation]:
        """The conversations of a unit, one at a time; after a fault reading goes on behind the last one."""
        rows, done = None, 0

        def following() -> Conversation | None:
            nonlocal rows
            rows = rows or islice(self.utterances.conversations(unit), done, None)
            try:
                return next(rows, None)
            except Exception:
                rows = None
                raise

        while conversation := self._patiently(following, unit):
            done += 1
            yield conversation


def _in_turns(iterators: list[Iterator]) -> Iterator:
    """One of each after the other, until all have ended."""
    while iterators:
        going_on = []
        for iterator in iterators:
            for item in islice(iterator, 1):
                yield item
                going_on.append(iterator)
        iterators = going_on
