"""Sounds with a pitch that nobody makes by speaking: tones, hum, telephones, music, alarms, by rule.

Each is a function of a generator and a length in samples at 16 kHz, and gives a float32 waveform at any level.
"""

import numpy as np
from scipy.ndimage import uniform_filter1d

RATE = 16_000
NYQUIST = 7_600.0

RING_CADENCES = ((2, 4), (0.4, 0.2, 0.4, 2), (1, 4), (1, 3), (0.4, 0.2, 0.4, 0.2, 0.8, 2))
"""Seconds on and off in turn: North America, Britain, most of Europe, others."""
CALL_PROGRESS = (
    ((350, 440), ()),
    ((425,), ()),
    ((480, 620), (0.5, 0.5)),
    ((425,), (0.5, 0.5)),
    ((400,), (0.375, 0.375)),
    ((440, 480), (2, 4)),
    ((425,), (1, 4)),
    ((400, 450), (0.4, 0.2, 0.4, 2)),
    ((480, 620), (0.25, 0.25)),
    ((425,), (0.2, 0.2)),
    ((440,), (0.3, 10)),
    ((425,), (0.2, 0.6)),
)
"""Dial, busy, ringback, reorder and call waiting tones (ITU-T E.180): frequencies in Hz, cadence in seconds."""
DTMF_LOW, DTMF_HIGH = (697, 770, 852, 941), (1209, 1336, 1477, 1633)
SPECIAL_INFORMATION = (950.0, 1400.0, 1800.0)
SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9), (0, 3, 5, 6, 7, 10))
CHORDS = ((0, 4, 7), (0, 3, 7), (0, 4, 7, 11), (0, 3, 7, 10), (0, 5, 7), (0, 4, 7, 10))
BELL_PARTIALS = (1.0, 1.51, 2.02, 2.74, 3.6, 5.1)


def partials(frequency: float | np.ndarray, samples: int, amplitudes, phases=None, ratios=None) -> np.ndarray:
    """A sum of sines at `ratios` (by default 1, 2, 3, ...) of a frequency in Hz, which may differ every sample.

    What lies above the band is left out.
    """
    if np.ndim(frequency) == 0:
        cycles = np.arange(samples) * (frequency / RATE)
    else:
        cycles = np.cumsum(frequency) / RATE
    highest = np.max(frequency)
    wave = np.zeros(samples, np.float32)
    for k, amplitude in enumerate(amplitudes):
        ratio = k + 1 if ratios is None else ratios[k]
        if ratio * highest < NYQUIST:
            turn = cycles * ratio + (0 if phases is None else phases[k])
            wave += np.float32(amplitude) * np.sin((2 * np.pi * (turn - np.floor(turn))).astype(np.float32))
    return wave


def cadence(samples: int, seconds, start: float = 0.0) -> np.ndarray:
    """An envelope that is 1 and 0 in turn for so many seconds, round and round from `start`, with edges of 5 ms."""
    if len(seconds) == 0:
        return np.ones(samples, np.float32)
    ends = np.cumsum(np.asarray(seconds) * RATE)
    place = np.searchsorted(ends, (np.arange(samples) + start * RATE) % ends[-1], side="right")
    return uniform_filter1d((place % 2 == 0).astype(np.float32), 80)


def steady_tone(rng: np.random.Generator, samples: int) -> np.ndarray:
    """One, two or three sines that go on, or swell slowly."""
    wave = np.zeros(samples, np.float32)
    for frequency in log_uniform(rng, 90, 6000, rng.integers(1, 4)):
        wave += partials(frequency, samples, [rng.uniform(0.2, 1)])
    if rng.random() < 0.4:
        wave *= 1 + rng.uniform(0.2, 1) * partials(rng.uniform(0.2, 8), samples, [1])
    return wave


def harmonic_tone(rng: np.random.Generator, samples: int) -> np.ndarray:
    """A buzz: harmonics that fall by 3 to 12 dB an octave, all of them or the odd ones."""
    number = np.arange(1, 25)
    amplitudes = number ** -rng.uniform(0.5, 2.0)
    if rng.random() < 0.4:
        amplitudes[1::2] = 0
    pitch = log_uniform(rng, 55, 1500)
    if rng.random() < 0.5:
        wobble = partials(rng.uniform(0.1, 7), samples, [rng.uniform(0, 0.03)])
        pitch = pitch * (1 + wobble)
    return partials(pitch, samples, amplitudes, rng.random(24))


def mains_hum(rng: np.random.Generator, samples: int) -> np.ndarray:
    """50 or 60 Hz and its harmonics, the even ones of a transformer louder."""
    number = np.arange(1, 25)
    amplitudes = rng.uniform(0.05, 1, 24) * number ** -rng.uniform(0.3, 1.6)
    amplitudes[1::2] *= rng.uniform(0.5, 4)
    return partials((50.0, 60.0)[rng.integers(2)], samples, amplitudes, rng.random(24))


def bell_ring(rng: np.random.Generator, samples: int) -> np.ndarray:
    """The bell of an old telephone: a clapper between two gongs, twenty times a second."""
    strikes = np.arange(samples) * (rng.uniform(17, 26) / RATE)
    fade = np.float32(rng.uniform(0.3, 1.5))
    wave = np.zeros(samples, np.float32)
    pitch = rng.uniform(450, 1400)
    for gong, shift in ((1.0, 0.0), (rng.uniform(1.05, 1.4), 0.5)):
        since = ((strikes + shift) % 1).astype(np.float32)
        ringing = partials(pitch * gong, samples, rng.uniform(0.2, 1, 6), rng.random(6), BELL_PARTIALS)
        wave += ringing * np.exp(-since / fade)
    pattern = RING_CADENCES[rng.integers(len(RING_CADENCES))]
    heard = uniform_filter1d(cadence(samples, pattern, rng.uniform(0, sum(pattern))), 3200)
    return wave * heard


def electronic_ring(rng: np.random.Generator, samples: int) -> np.ndarray:
    """The ringer of an electronic telephone: two or three notes in quick turns."""
    notes = rng.uniform(500, 2200) * np.sort(rng.uniform(1, 1.6, rng.integers(2, 4)))
    rate = rng.uniform(8, 32)
    note = (np.arange(samples) * (rate / RATE)).astype(np.int64) % len(notes)
    number = np.arange(1, 7)
    amplitudes = number ** -rng.uniform(0.8, 2.5) * (number % 2 if rng.random() < 0.5 else 1)
    pattern = RING_CADENCES[rng.integers(len(RING_CADENCES))]
    return partials(notes[note], samples, amplitudes) * cadence(samples, pattern, rng.uniform(0, sum(pattern)))


def call_progress(rng: np.random.Generator, samples: int) -> np.ndarray:
    """What a telephone line says of a call: dial, busy, ringback, reorder, or the three notes of a wrong number."""
    kind = rng.integers(len(CALL_PROGRESS) + 1)
    if kind == len(CALL_PROGRESS):
        note = (np.arange(samples) / (0.33 * RATE)).astype(np.int64) % 6
        frequency = np.array(SPECIAL_INFORMATION * 2)[note]
        return partials(frequency, samples, [1]) * cadence(samples, (0.99, 0.99), 0)
    frequencies, pattern = CALL_PROGRESS[kind]
    wave = sum(partials(frequency, samples, [rng.uniform(0.7, 1)]) for frequency in frequencies)
    return wave * cadence(samples, pattern, rng.uniform(0, sum(pattern) if pattern else 1))


def dtmf(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Keys of a telephone pressed one after the other (ITU-T Q.23), as a hand or a machine does."""
    on, off = rng.uniform(0.06, 0.35), rng.uniform(0.05, 0.6)
    key = (np.arange(samples) / ((on + off) * RATE)).astype(np.int64)
    rows, columns = rng.integers(4, size=(2, key[-1] + 1))
    columns = np.minimum(columns, rng.integers(2, 4))
    low, high = np.array(DTMF_LOW)[rows[key]], np.array(DTMF_HIGH)[columns[key]]
    wave = partials(low, samples, [rng.uniform(0.5, 1)]) + partials(high, samples, [1])
    return wave * cadence(samples, (on, off))


def melody(rng: np.random.Generator, samples: int) -> np.ndarray:
    """A tune on a scale over a slow bass, as music on hold."""
    scale = np.array(SCALES[rng.integers(len(SCALES))])
    beat, root = rng.uniform(0.12, 0.6), rng.integers(45, 65)
    count = int(samples / (beat * RATE)) + 2
    steps = np.clip(np.cumsum(rng.integers(-2, 3, count)), -5, 10)
    octaves, degrees = np.divmod(steps, len(scale))
    notes = root + 12 * octaves + scale[degrees]
    lengths = beat * rng.choice([1, 1, 1, 2], count)
    wave = _play(rng, samples, [(pitch,) for pitch in notes], lengths)
    if rng.random() < 0.6:
        bass = root - 12 + scale[rng.integers(len(scale), size=count // 4 + 1)]
        wave += rng.uniform(0.3, 1) * _play(rng, samples, [(pitch,) for pitch in bass], np.full(len(bass), 4 * beat))
    return wave


def arpeggio(rng: np.random.Generator, samples: int) -> np.ndarray:
    """The notes of a chord, up or down, again and again; the chord changes."""
    beat, root = rng.uniform(0.08, 0.35), rng.integers(48, 70)
    count = int(samples / (beat * RATE)) + 2
    notes = []
    while len(notes) < count:
        chord = [root + rng.choice([-5, 0, 2, 5, 7]) + step for step in CHORDS[rng.integers(len(CHORDS))]]
        notes += [(pitch,) for pitch in [*chord, chord[0] + 12][:: rng.choice([-1, 1])]] * 2
    return _play(rng, samples, notes[:count], np.full(count, beat))


def chords(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Chords one after the other, struck or swelling like an organ or strings."""
    beat, root = rng.uniform(0.5, 2.5), rng.integers(43, 62)
    count = int(samples / (beat * RATE)) + 1
    notes = [
        tuple(root + rng.choice([-5, -2, 0, 2, 5, 7]) + step for step in CHORDS[rng.integers(len(CHORDS))])
        for _ in range(count)
    ]
    return _play(rng, samples, notes, np.full(count, beat))


def _play(rng: np.random.Generator, samples: int, notes: list[tuple], lengths: np.ndarray) -> np.ndarray:
    """Notes (MIDI numbers, one or a few together) in turn on an instrument drawn by chance; lengths in seconds."""
    number = np.arange(1, 9)
    amplitudes = number ** -rng.uniform(0.8, 3.0) * rng.uniform(0.3, 1, 8)
    attack, decay = log_uniform(rng, 0.003, 0.15), log_uniform(rng, 0.1, 3)
    vibrato = rng.uniform(0, 0.004)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    bounds = np.minimum((starts * RATE).astype(np.int64), samples)
    at = np.repeat(np.arange(len(lengths)), np.diff(bounds))
    at = np.pad(at, (0, samples - len(at)), mode="edge")
    since = ((np.arange(samples) - bounds[at]) / RATE).astype(np.float32)
    left = (lengths.astype(np.float32) - 0.005)[at] - since
    envelope = np.minimum(since / np.float32(attack), 1) * np.exp(-since / np.float32(decay))
    envelope *= np.clip(left / np.float32(0.01), 0, 1)
    detune = 1 + vibrato * partials(rng.uniform(4, 7), samples, [1])
    kept = amplitudes > 0.03 * amplitudes.max()
    wave = np.zeros(samples, np.float32)
    for voice in range(max(map(len, notes))):
        pitch = np.array([chord[voice % len(chord)] for chord in notes])
        frequency = 440 * 2 ** ((pitch - 69) / 12)
        wave += partials(frequency[at] * detune, samples, amplitudes[kept], ratios=number[kept])
    return wave * envelope


def strings(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Plucked or struck strings that ring on into each other: a guitar, a harp, a piano, over a bass."""
    root, beat, ring = rng.integers(43, 62), rng.uniform(0.12, 0.5), rng.uniform(0.6, 1.6)
    scale = np.array(SCALES[rng.integers(len(SCALES))])
    steps = np.concatenate([scale[rng.permutation(len(scale))[:5]], scale[:2] + 12, [-12, -5]])
    number = np.arange(1, 11)
    amplitudes = np.abs(np.sin(np.pi * number * rng.uniform(0.08, 0.5))) * number ** -rng.uniform(0.3, 1.5)
    time = np.arange(int(ring * RATE), dtype=np.float32) / RATE
    falls = np.float32(rng.uniform(2, 6) / ring) * number ** np.float32(rng.uniform(0, 0.8))
    grains = []
    for frequency in (440 * 2 ** ((root + steps - 69) / 12)).astype(np.float32):
        kept = number * frequency < NYQUIST
        grain = np.zeros(len(time), np.float32)
        for k, amplitude, fall in zip(number[kept], amplitudes[kept].astype(np.float32), falls[kept]):
            grain += amplitude * np.sin(np.float32(2 * np.pi * k) * frequency * time) * np.exp(-fall * time)
        grain[:32] *= np.linspace(0, 1, 32, dtype=np.float32)
        grains.append(grain)
    wave = np.zeros(samples + len(time), np.float32)
    for position, at in enumerate(np.arange(0, samples / RATE, beat)):
        if rng.random() < 0.8:
            first = int(at * RATE)
            wave[first : first + len(time)] += grains[rng.integers(len(grains) - 2)]
            if position % 4 == 0:
                wave[first : first + len(time)] += grains[-1 - rng.integers(2)]
    return wave[:samples]


def chirps(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Short glides, as of birds and toys, in groups."""
    length = int(rng.uniform(0.04, 0.4) * RATE)
    low, high = np.sort(log_uniform(rng, 300, 6500, 2))
    place = np.linspace(0, 1, length, dtype=np.float32)
    curve = (place, 1 - place, np.sin(np.pi * place))[rng.integers(3)]
    chirp = partials(low * (high / low) ** curve, length, [1, rng.uniform(0, 0.4)]) * np.sin(np.pi * place)
    on, off = rng.uniform(0.3, 2), rng.uniform(0, 1.5)
    gap = int(rng.uniform(0, 0.3) * RATE)
    wave = np.resize(np.concatenate([chirp, np.zeros(gap, np.float32)]), samples)
    return wave * cadence(samples, (on, off), rng.uniform(0, on + off))


def sweep(rng: np.random.Generator, samples: int) -> np.ndarray:
    """A tone that glides up or down the band, again and again."""
    low, high = np.sort(log_uniform(rng, 60, 7000, 2))
    place = np.arange(samples) / (rng.uniform(0.5, 6) * RATE) + rng.random()
    place = 1 - np.abs(1 - 2 * (place % 1)) if rng.random() < 0.5 else place % 1
    amplitudes = np.arange(1, 5) ** -rng.uniform(1, 4)
    return partials(low * (high / low) ** place, samples, amplitudes)


def beeps(rng: np.random.Generator, samples: int) -> np.ndarray:
    """A tone on and off at an even pace: monitors, reversing lorries, answering machines, microwave ovens."""
    on, off = log_uniform(rng, 0.04, 1.0), log_uniform(rng, 0.05, 2.5)
    wave = partials(log_uniform(rng, 300, 4500), samples, np.arange(1, 5) ** -rng.uniform(1, 4))
    return wave * cadence(samples, (on, off), rng.uniform(0, on + off))


def alarm(rng: np.random.Generator, samples: int) -> np.ndarray:
    """A siren that wails, one of two notes, or the three pulses of a smoke alarm."""
    kind = rng.integers(3)
    if kind == 0:
        low = rng.uniform(400, 900)
        rise = 0.5 + 0.5 * partials(log_uniform(rng, 0.15, 5), samples, [1])
        return partials(low * rng.uniform(1.3, 2.5) ** rise, samples, np.arange(1, 9) ** -1.2)
    if kind == 1:
        notes = rng.uniform(350, 1000) * np.array([1, rng.uniform(1.15, 1.5)])
        note = (np.arange(samples) * (rng.uniform(0.8, 4) / RATE)).astype(np.int64) % 2
        return partials(notes[note], samples, np.arange(1, 9) ** -1.5)
    return partials(rng.uniform(2700, 3500), samples, [1, 0.2]) * cadence(samples, (0.5, 0.5, 0.5, 0.5, 0.5, 1.5))


def modem(rng: np.random.Generator, samples: int) -> np.ndarray:
    """A fax or modem: its call and answer tones, data in two frequencies, data that is noise in the telephone band."""
    kind = rng.integers(4)
    if kind == 0:
        return partials(1100.0, samples, [1]) * cadence(samples, (0.5, 3), rng.uniform(0, 3.5))
    if kind == 1:
        return partials(2100.0, samples, [1]) * (1 + 0.2 * partials(15.0, samples, [1]))
    baud = (300, 1200, 1200, 2400)[rng.integers(4)]
    symbol = (np.arange(samples) * (baud / RATE)).astype(np.int64)
    if kind == 2:
        pair = np.array([(980, 1180), (1650, 1850), (1070, 1270), (1300, 2100)][rng.integers(4)])
        return partials(pair[rng.integers(2, size=symbol[-1] + 1)][symbol], samples, [1])
    phase = rng.integers(4, size=symbol[-1] + 1)[symbol] / 4
    cycles = np.arange(samples) * (1800.0 / RATE) + phase
    return uniform_filter1d(np.sin((2 * np.pi * (cycles % 1)).astype(np.float32)), 3)


def log_uniform(rng: np.random.Generator, low: float, high: float, size=None):
    """Numbers whose logarithms are uniform."""
    return np.exp(rng.uniform(np.log(low), np.log(high), size))
