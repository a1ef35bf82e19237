"""Time, length and sampling rate of recordings as players have them, whatever tool wrote the file."""

import io
import warnings
from contextlib import contextmanager

import av
import numpy as np
import pytest
import soundfile
from audio_files import (
    FFMPEG,
    PAIRS,
    RATE,
    by_ffmpeg,
    by_filter_graph,
    encode,
    pipe,
    shift,
    speech_like,
    wav,
    without_xing,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from data.decoding import RowError, decode, open_with_libsndfile
from data.solo_speech import cut
from modeling.audio_fast_diarization import (
    AudioError,
    AudioNotice,
    AudioWarning,
    audio_blocks,
    declared_seconds,
    load_audio,
    to_mono_16k,
)
from modeling.timeline_fast_diarization import JITTER_SECONDS, LONGEST_HOLE, LONGEST_STEP_BACK, Frame, Timeline

COMMON = {("wav", "pcm_s16le"), ("flac", "flac"), ("webm", "libopus"), ("mp4", "aac"), ("mp3", "libmp3lame")}
"""Tried by unit tests too."""
SECONDS = 6.0


@contextmanager
def said():
    """The warnings and notices of what is read meanwhile."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        messages: list[tuple[type, str]] = []
        yield messages
    messages += [(warning.category, str(warning.message)) for warning in caught]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(p, marks=() if p[:2] in COMMON else pytest.mark.slow, id="-".join(map(str, p))) for p in PAIRS
    ],
)
def pair(request) -> tuple[str, bytes]:
    container, codec, rate = request.param
    if codec not in av.codecs_available:
        pytest.skip(f"this build of PyAV cannot encode {codec}")
    return container, encode(container, codec, speech_like(SECONDS, rate), rate=rate)


def test_samples_and_times_are_those_of_ffmpeg(pair):
    _, recording = pair
    with said() as messages:
        ours = load_audio(recording)
    theirs = by_filter_graph(recording)
    assert messages == []
    assert abs(len(ours) - len(theirs)) <= 1
    np.testing.assert_allclose(ours[: len(theirs)], theirs[: len(ours)], atol=1e-3)
    delay = shift(ours, speech_like(SECONDS))
    assert delay + 25 >= 0 and delay < 0.03 * RATE, "at most what the encoder delays and no header tells"


@pytest.mark.slow
@pytest.mark.skipif(FFMPEG is None, reason="there is no ffmpeg here")
def test_times_are_those_of_the_program_ffmpeg(pair, tmp_path):
    container, recording = pair
    ours, theirs = load_audio(recording), by_ffmpeg(recording, tmp_path)
    # Older programs leave the encoder's delay in Matroska.
    frame = 0.025 * RATE if container in ("matroska", "webm") else 1
    assert abs(len(ours) - len(theirs)) <= frame
    assert abs(shift(ours, theirs)) <= frame


def test_lengths_are_those_declared(pair):
    container, recording = pair
    with av.open(io.BytesIO(recording)) as file:
        theirs = file.duration / 1e6
    guessed = {"adts": 0.3, "avi": 0.3}  # by FFmpeg, from a bit rate and from the size of the file
    assert abs(len(load_audio(recording)) / RATE - theirs) < guessed.get(container, 0.05)
    assert declared_seconds(recording) == pytest.approx(theirs, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("container", "codec"), [("wav", "pcm_s16le"), ("flac", "flac"), ("webm", "libopus")])
def test_a_pipe_and_blocks_of_any_length_give_the_same_samples(container, codec):
    rate = 48_000 if codec == "libopus" else RATE
    recording = encode(container, codec, speech_like(SECONDS, rate), rate=rate)
    whole = load_audio(recording)
    with pipe(recording) as file:
        np.testing.assert_array_equal(load_audio(file), whole)
    for seconds in (0.02, 0.37, 5.0):
        blocks = list(audio_blocks(recording, seconds))
        assert {len(block) for block in blocks[:-1]} <= {round(seconds * RATE)}
        np.testing.assert_array_equal(np.concatenate(blocks), whole)


# Stamps


def placed(*pieces: tuple[float, np.ndarray]) -> np.ndarray:
    """Waveforms from the seconds given on, silence between."""
    end = max(round(start * RATE) + len(piece) for start, piece in pieces)
    waveform = np.zeros(end, np.float32)
    for start, piece in pieces:
        waveform[round(start * RATE) :][: len(piece)] = piece
    return waveform


SOUND = speech_like(12)
MOVES = {
    "hole": (lambda t: t if t < 5 else t + 6, placed((0, SOUND[: 5 * RATE]), (11, SOUND[5 * RATE :]))),
    "lost": (lambda t: None if 4 <= t < 7 else t, placed((0, SOUND[: 4 * RATE]), (7, SOUND[7 * RATE :]))),
    "jitter": (lambda t: t + 0.01 * np.sin(50 * t), SOUND),
    "drift": (lambda t: 1.001 * t, SOUND),
    "one far": (lambda t: t + 3000 if 5 < t < 5.02 else t, SOUND),
    "never": (lambda t: t if t < 5 else t + 2 * LONGEST_HOLE, SOUND),
}


@pytest.mark.parametrize("name", MOVES)
def test_holes_are_silence_and_jitter_is_nothing(name):
    move, expected = MOVES[name]
    recording = encode("matroska", "pcm_s16le", SOUND, move=move)
    with said() as messages:
        waveform = load_audio(recording)
    assert len(waveform) == len(expected)
    np.testing.assert_allclose(waveform, expected, atol=1e-3)
    kinds = {"hole": [AudioNotice], "lost": [AudioNotice], "never": [AudioWarning]}
    assert [kind for kind, _ in messages] == kinds.get(name, [])


def test_a_track_that_begins_late_begins_late():
    recording = encode("matroska", "pcm_s16le", SOUND, move=lambda t: t + 4, video_seconds=16)
    np.testing.assert_allclose(load_audio(recording), placed((4, SOUND)), atol=1e-3)
    alone = encode("matroska", "pcm_s16le", SOUND, move=lambda t: t + 4)
    np.testing.assert_allclose(load_audio(alone), SOUND, atol=1e-3), "a player begins with the first track"


@pytest.mark.slow
@pytest.mark.parametrize("container", ["matroska", "mp4", "mpegts"])
@pytest.mark.parametrize("name", ["hole", "lost", "jitter"])
def test_stamps_are_followed_as_ffmpeg_does(container, name):
    recording = encode(container, "aac", speech_like(12, 48_000), rate=48_000, move=MOVES[name][0])
    ours, theirs = load_audio(recording), by_filter_graph(recording)
    assert abs(len(ours) - len(theirs)) <= 1
    np.testing.assert_allclose(ours[: len(theirs)], theirs[: len(ours)], atol=1e-3)


def on_timeline(*frames: tuple[float | None, int], restarts: bool = False) -> tuple[np.ndarray, Timeline]:
    """Frames of `count` samples at 1 kHz and their stamps, samples numbered from 1 on, on a timeline."""
    timeline, at, found = Timeline(restarts), 0, []
    for stamp, count in frames:
        samples = np.arange(at + 1, at + count + 1, dtype=np.float32)[None]
        found += [piece for _, piece in timeline.push(Frame(samples, 1000, stamp))]
        at += count
    found += [piece for _, piece in timeline.flush()]
    return np.concatenate([np.zeros((1, 0)), *found], axis=1)[0], timeline


def test_what_comes_early_loses_its_beginning():
    waveform, timeline = on_timeline((0, 1000), (0.5, 1000), (1.5, 1000))
    assert waveform.tolist() == [*range(1, 1001), *range(1501, 3001)]
    assert timeline.cut == pytest.approx(0.5)


def test_what_lies_before_the_beginning_is_not_heard():
    waveform, timeline = on_timeline((-0.2, 1000), (0.8, 1000))
    assert waveform.tolist() == list(range(201, 2001))
    assert (timeline.cut, timeline.broken) == (0, 0)


@pytest.mark.parametrize("back", [LONGEST_STEP_BACK + 1, 1e6])
def test_a_clock_that_begins_anew_loses_nothing(back):
    stamps = (20, 21, 22 - back, 23 - back, 25 - back)
    waveform, timeline = on_timeline(*((stamp, 1000) for stamp in stamps))
    assert waveform.tolist() == [*[0] * 20_000, *range(1, 4001), *[0] * 1000, *range(4001, 5001)]
    assert timeline.broken == 1
    chained, timeline = on_timeline((0, 1000), (1, 1000), (0, 1000), (1, 1000), restarts=True)
    assert chained.tolist() == list(range(1, 4001)) and timeline.broken == 0


def test_without_stamps_samples_follow_each_other():
    waveform, _ = on_timeline((None, 500), (None, 500), (3, 500), (None, 500))
    assert waveform.tolist() == [*range(1, 1001), *[0] * 2000, *range(1001, 2001)]


@pytest.mark.slow
@given(
    gaps=st.lists(
        st.one_of(st.just(0.0), st.floats(-0.09, 0.09), st.floats(0.15, 5), st.floats(-20, 1e7), st.floats(-1e7, 1e7)),
        max_size=12,
    ),
    count=st.integers(50, 400),
)
@settings(deadline=None, max_examples=200)
def test_any_stamps_give_all_samples_once_in_order_and_bounded_silence(gaps, count):
    stamps = np.cumsum([0, *(count / 1000 + gap for gap in gaps)])
    waveform, timeline = on_timeline(*((stamp, count) for stamp in stamps))
    heard = waveform[waveform > 0]
    assert (np.diff(heard) > 0).all()
    assert len(waveform) == round(timeline.position * 1000)
    assert len(heard) == pytest.approx(len(stamps) * count - 1000 * timeline.cut, abs=len(stamps))
    assert len(waveform) - len(heard) == pytest.approx(1000 * timeline.silence, abs=len(stamps))
    if all(abs(gap) <= 0.09 for gap in gaps) and np.abs(np.cumsum(gaps or [0])).max() < JITTER_SECONDS:
        assert len(waveform) == len(heard) == len(stamps) * count


@given(holes=st.lists(st.tuples(st.integers(0, 30), st.floats(0.15, 30)), min_size=1, max_size=5))
@settings(deadline=None, max_examples=50)
def test_every_hole_has_its_length(holes):
    stamps = np.arange(33) / 10
    for at, seconds in holes:
        stamps[at + 1 :] += seconds
    waveform, timeline = on_timeline(*((stamp, 100) for stamp in stamps))
    starts = np.flatnonzero(np.isin(waveform, np.arange(33) * 100 + 1))
    np.testing.assert_allclose(starts / 1000, stamps, atol=0.002)
    assert timeline.silence == pytest.approx(sum(seconds for _, seconds in holes), abs=0.02)


# Lengths


WHOLE = speech_like(SECONDS)
CHUNK = b"LIST" + (26).to_bytes(4, "little") + b"INFOISFT" + (14).to_bytes(4, "little") + b"Lavf59.27.100\0"
RIGHT = {
    "right": wav(WHOLE),
    "0": wav(WHOLE, 0),
    "-1": wav(WHOLE, 0xFFFFFFFF),
    "7fffffff": wav(WHOLE, 0x7FFFFFFF),
    "80000000": wav(WHOLE, 0x80000000),
    "7ffff000": wav(WHOLE, 0x7FFFF000),
    "tags after": wav(WHOLE) + CHUNK,
}


@pytest.mark.parametrize("through", ["file", "pipe"])
@pytest.mark.parametrize("name", RIGHT)
def test_sizes_of_streamed_wav_are_no_damage(name, through):
    with said() as messages:
        if through == "pipe":
            with pipe(RIGHT[name]) as file:
                waveform = load_audio(file)
        else:
            waveform = load_audio(RIGHT[name])
            assert declared_seconds(RIGHT[name]) == pytest.approx(SECONDS, abs=0.01)
            np.testing.assert_allclose(decode(RIGHT[name]), waveform, atol=1e-4)
    assert messages == []
    np.testing.assert_allclose(waveform, WHOLE, atol=1e-4)


def test_thousands_of_chunks_after_the_data_are_no_damage():
    recording = wav(WHOLE) + 5_000 * (b"abcd" + bytes(4))
    with said() as messages:
        np.testing.assert_allclose(load_audio(recording), WHOLE, atol=1e-4)
    assert messages == []
    np.testing.assert_allclose(decode(recording), WHOLE, atol=1e-4)


@pytest.mark.parametrize("through", ["file", "pipe"])
@pytest.mark.parametrize("size", [2 * len(WHOLE) // 3, 2 * len(WHOLE) // 3 + 1, 2])
def test_a_header_shorter_than_the_data_is_overruled_and_said(size, through):
    with said() as messages:
        if through == "pipe":
            with pipe(wav(WHOLE, size)) as file:
                waveform = load_audio(file)
        else:
            waveform = load_audio(wav(WHOLE, size))
    np.testing.assert_allclose(waveform, WHOLE, atol=1e-4)
    assert messages == [(AudioNotice, messages[0][1])] and "header declares less" in messages[0][1]
    np.testing.assert_allclose(decode(wav(WHOLE, size)), WHOLE, atol=1e-4)


@pytest.mark.parametrize(
    ("container", "codec"),
    [("wav", "pcm_s16le"), ("flac", "flac"), ("mp3", "libmp3lame"), ("webm", "libopus"), ("aiff", "pcm_s16be")],
)
def test_what_is_known_to_be_missing_is_said(container, codec):
    rate = 48_000 if codec == "libopus" else RATE
    recording = encode(container, codec, speech_like(SECONDS, rate), rate=rate)
    with said() as messages:
        waveform = load_audio(recording[: len(recording) // 2])
    assert 0.3 < len(waveform) / RATE / SECONDS < 0.7
    ((kind, message),) = messages
    assert kind is AudioWarning and "of 6.0 s could be read" in message


@pytest.mark.slow
def test_an_mp3_that_does_not_say_its_length_is_read_whole_by_training_too():
    rate = 44_100
    sound = np.concatenate([speech_like(10, rate), np.zeros(4 * rate, np.float32), speech_like(16, rate, seed=1)])
    mp3 = without_xing(encode("mp3", "libmp3lame", sound, rate=rate))
    with said() as messages:
        waveform = load_audio(mp3)
    assert messages == []
    assert len(waveform) / RATE == pytest.approx(30, abs=0.1)
    np.testing.assert_array_equal(decode(mp3), waveform)


# One decoder


def flac_from_a_pipe(waveform: np.ndarray) -> bytes:
    """Neither its length nor its digest in the header, as the program that wrote it could not go back."""
    flac = bytearray(encode("flac", "flac", waveform))
    flac[21] &= 0xF0
    flac[22:42] = bytes(20)
    return bytes(flac)


def written(waveform: np.ndarray, rate: int = RATE, **options) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, waveform.T, rate, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({"format": "FLAC"}, 1e-6),
        ({"format": "WAV", "subtype": "PCM_16"}, 1e-6),
        ({"format": "WAV", "subtype": "FLOAT"}, 1e-6),
        ({"format": "OGG", "subtype": "VORBIS"}, 1e-3),
        ({"format": "OGG", "subtype": "OPUS"}, 0.03),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_the_fast_path_of_training_gives_what_the_decoder_gives(options, tolerance, channels):
    sound = WHOLE if channels == 1 else np.stack([WHOLE, 0.5 * speech_like(SECONDS, seed=2)])
    recording = written(sound, **options)
    assert open_with_libsndfile(recording) is not None
    fast, slow = decode(recording), load_audio(recording)
    assert len(fast) == len(slow) and shift(fast, slow) == 0
    np.testing.assert_allclose(fast, slow, atol=tolerance)
    assert np.corrcoef(fast, slow)[0, 1] > 0.999


@pytest.mark.slow
def test_what_libsndfile_reads_otherwise_goes_the_slow_way():
    lossy = encode("ogg", "libopus", speech_like(12, 48_000), rate=48_000, move=MOVES["lost"][0])
    many = written(np.tile(WHOLE, (8, 1)), format="FLAC", rate=96_000)
    for recording in (flac_from_a_pipe(WHOLE), wav(WHOLE, 0), encode("mp3", "libmp3lame", WHOLE), lossy, many):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AudioNotice)
            np.testing.assert_array_equal(decode(recording), load_audio(recording))


def test_damaged_rows_are_refused():
    flac = bytearray(written(WHOLE, format="FLAC"))
    flac[len(flac) // 2] ^= 0xFF
    for recording in (bytes(flac), written(WHOLE, format="FLAC")[:9_000], wav(WHOLE)[:90_000]):
        with pytest.raises(RowError):
            decode(recording)


def test_conversations_are_cut_out_of_any_file():
    for recording in (flac_from_a_pipe(WHOLE), wav(WHOLE, 0), wav(WHOLE, 64_000), written(WHOLE, format="FLAC")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AudioNotice)
            ((piece, _),) = cut(recording, [(3.0, 4.5, "A")])
        np.testing.assert_allclose(decode(piece), WHOLE[3 * RATE : round(4.5 * RATE)], atol=1e-3)


# What cannot be


@pytest.mark.parametrize("rate", [1, 999, 768_001, 2**31 - 1])
def test_sampling_rates_that_cannot_be_are_refused_at_once(rate):
    for read in (load_audio, decode):
        with pytest.raises(ValueError, match=f"expected a sampling rate of 1000 to 768000 Hz.*got {rate}"):
            read(wav(WHOLE, rate=rate))
    with pytest.raises(AudioError, match=f"1000 to 768000 Hz.*got {rate}"):
        to_mono_16k(WHOLE, rate)


def test_an_mp4_through_a_pipe_says_where_its_index_is():
    m4a = encode("ipod", "aac", WHOLE)
    assert len(load_audio(m4a)) / RATE == pytest.approx(SECONDS, abs=0.1)
    for content in (m4a, m4a[:5_000]):
        with pipe(content) as file, pytest.raises(AudioError, match="index is at its end.*faststart") as error:
            load_audio(file)
        assert "\n" not in str(error.value)


def test_an_empty_pipe_is_empty():
    with pipe(b"") as file, pytest.raises(AudioError, match="the file is empty"):
        load_audio(file)


def test_a_codec_that_nobody_knows_is_one_line():
    unknown = encode("matroska", "pcm_s16le", WHOLE).replace(b"A_PCM/INT/LIT", b"A_PCM/ODD/LIT")
    with pytest.raises(AudioError, match="FFmpeg has no decoder for its audio"):
        load_audio(unknown)


@pytest.mark.slow
@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_damaged_bytes_give_an_error_or_sound_of_bounded_length(data):
    recording = bytearray(DAMAGED[data.draw(st.integers(0, len(DAMAGED) - 1))])
    for at, byte in data.draw(st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=20)):
        recording[int(at**3 * len(recording))] = byte
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            waveform = load_audio(bytes(recording))
        except AudioError as error:
            assert "\n" not in str(error)
        else:
            assert np.isfinite(waveform).all() and len(waveform) / RATE < LONGEST_HOLE + 10 * SECONDS


DAMAGED = [
    encode(container, codec, speech_like(1, rate), rate=rate)
    for container, codec, rate in (("matroska", "pcm_s16le", RATE), ("mp4", "aac", 48_000), ("ogg", "flac", RATE))
]
