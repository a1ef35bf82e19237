"""Non-speech sounds, rendered for scoring alone.

Training makes such sounds too (`data/sounds.py`). So that scores do not only tell how well a network knows that
generator, the sounds here are synthesised in other ways (struck resonators, plucked strings, frequency modulation,
filtered impulses, clipping), play other tunes, numbers and patterns, and are the same every time.

Each is a function of a length in samples at 16 kHz and gives a waveform at any level.
"""

from collections.abc import Callable, Sequence

import numpy as np
import scipy.signal

RATE = 16_000
GREENSLEEVES = (
    "A4:1 C5:2 D5:1 E5:1.5 F5:.5 E5:1 D5:2 B4:1 G4:1.5 A4:.5 B4:1 C5:2 A4:1 A4:1.5 G#4:.5 A4:1 B4:2 G#4:1 E4:2 "
    "A4:1 C5:2 D5:1 E5:1.5 F5:.5 E5:1 D5:2 B4:1 G4:1.5 A4:.5 B4:1 C5:1.5 B4:.5 A4:1 G#4:1.5 F#4:.5 G#4:1 A4:3"
)
ODE = "E4:1 E4:1 F4:1 G4:1 G4:1 F4:1 E4:1 D4:1 C4:1 C4:1 D4:1 E4:1 E4:1.5 D4:.5 D4:2"
ALBERTI = (("C4", "G4", "E4", "G4"), ("D4", "G4", "F4", "G4"), ("C4", "A4", "F4", "A4"), ("B3", "G4", "D4", "G4"))
ORGAN = (("C3", "G3", "E4"), ("A3", "C4", "E4"), ("F3", "A3", "C4"), ("G3", "B3", "D4"))
NUMBERS = "0123456789*#147258036"
KEYPAD = ("123", "456", "789", "*0#")


def time(samples: int) -> np.ndarray:
    """Seconds, (samples,)."""
    return np.arange(samples) / RATE


def sine(frequency: float, samples: int) -> np.ndarray:
    return np.sin(2 * np.pi * frequency * time(samples))


def in_turn(samples: int, *parts: np.ndarray) -> np.ndarray:
    """Equally long pieces, one after the other."""
    each = -(-samples // len(parts))
    return np.concatenate([part[:each] for part in parts])[:samples]


def pulsed(samples: int, on: float, off: float) -> np.ndarray:
    """1 for `on` seconds and 0 for `off`, round and round, with soft edges."""
    gate = (time(samples) % (on + off) < on).astype(float)
    return np.convolve(gate, np.hanning(160) / np.hanning(160).sum(), mode="same")


def hertz(note: str) -> float:
    """Of a note such as `G#4`."""
    step = ["C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B"].index(note[:-1])
    return 440 * 2 ** ((step - 9 + 12 * (int(note[-1]) - 4)) / 12)


def resonate(excitation: np.ndarray, modes: Sequence[tuple[float, float]]) -> np.ndarray:
    """What is struck rings: two poles for each mode (Hz, seconds to fall by 60 dB), side by side."""
    heard = np.zeros(len(excitation))
    for frequency, decay in modes:
        radius = 10 ** (-3 / decay / RATE)
        poles = [1, -2 * radius * np.cos(2 * np.pi * frequency / RATE), radius**2]
        heard += scipy.signal.lfilter([1, 0, -1], poles, excitation) * (1 - radius)
    return heard


def through_mouth(excitation: np.ndarray, formants: Sequence[tuple[float, float]]) -> np.ndarray:
    """Filtered by poles (Hz, bandwidth in Hz), one after the other."""
    for frequency, bandwidth in formants:
        radius = np.exp(-np.pi * bandwidth / RATE)
        poles = [1, -2 * radius * np.cos(2 * np.pi * frequency / RATE), radius**2]
        excitation = scipy.signal.lfilter([sum(poles)], poles, excitation)
    return excitation


def impulses(samples: int, seconds: np.ndarray) -> np.ndarray:
    train = np.zeros(samples)
    at = (np.asarray(seconds) * RATE).astype(int)
    train[at[at < samples]] = 1
    return train


def noise(samples: int, seed: int) -> np.ndarray:
    return np.random.default_rng([2027, seed]).standard_normal(samples)


def tone(samples: int) -> np.ndarray:
    """440 Hz, 1 kHz, 220 Hz as a triangle, two that beat."""
    beating = sine(620, samples) + sine(623, samples)
    triangle = scipy.signal.sawtooth(2 * np.pi * 220 * time(samples), 0.5)
    return in_turn(samples, sine(440, samples), sine(1000, samples), triangle, beating)


def mains_hum(samples: int) -> np.ndarray:
    """50 Hz that saturates a core, 60 Hz after a rectifier, 50 Hz with the spikes of a dimmer."""
    core = np.tanh(2.5 * (sine(50, samples) + 0.2)) + 0.1 * sine(250, samples)
    dimmer = np.gradient((np.abs(sine(50, samples)) > 0.8).astype(float)) + 0.02 * sine(50, samples)
    return in_turn(samples, core, np.abs(sine(60, samples)) - 2 / np.pi, dimmer)


def old_bell(samples: int) -> np.ndarray:
    """Two gongs struck in turn, 20 times a second, 2 s in every 6."""
    strikes = np.arange(0, samples / RATE, 0.05)
    strikes = strikes[strikes % 6 < 2]
    gongs = [((830, 0.9), (1990, 0.6), (3420, 0.3)), ((1010, 0.9), (2420, 0.6), (4150, 0.3))]
    return sum(resonate(impulses(samples, strikes[k::2]), modes) for k, modes in enumerate(gongs))


def electronic_ring(samples: int) -> np.ndarray:
    """A warble by frequency modulation, 0.4 s twice in every 3 s."""
    t = time(samples)
    warble = scipy.signal.square(2 * np.pi * (880 * t + 6 * np.sin(2 * np.pi * 14 * t)))
    return warble * pulsed(samples, 0.4, 0.2) * (t % 3 < 1)


def call_progress(samples: int) -> np.ndarray:
    """Dial tone, ringback, busy, congestion, of two continents, as products of sines."""
    american = 2 * sine(395, samples) * np.cos(2 * np.pi * 45 * time(samples))
    ringback = 2 * sine(460, samples) * np.cos(2 * np.pi * 20 * time(samples)) * pulsed(samples, 2, 4)
    busy = sine(425, samples) * pulsed(samples, 0.48, 0.48)
    congestion = 2 * sine(550, samples) * np.cos(2 * np.pi * 70 * time(samples)) * pulsed(samples, 0.25, 0.25)
    return in_turn(samples, american, ringback, busy, congestion)


def dtmf(samples: int) -> np.ndarray:
    """All keys, 100 ms each with pauses of 100 ms."""
    each = RATE // 5
    keys = []
    for key in NUMBERS:
        row = next(r for r, keys_of_row in enumerate(KEYPAD) if key in keys_of_row)
        low, high = (697, 770, 852, 941)[row], (1209, 1336, 1477)[KEYPAD[row].index(key)]
        keys.append((sine(low, each) + sine(high, each)) * (np.arange(each) < each // 2))
    return np.resize(np.concatenate([*keys, np.zeros(RATE)]), samples)


def plucked(samples: int, tune: str, beat: float) -> np.ndarray:
    """A tune on strings (Karplus and Strong, 1983) over an octave below."""
    wave, at = np.zeros(samples), 0
    for number, note in enumerate(tune.split() * 20):
        name, beats = note.split(":")
        if at >= samples:
            break
        for frequency, loudness in ((hertz(name), 1.0), (hertz(name) / 2, 0.5 * (number % 2 == 0))):
            period = round(RATE / frequency)
            burst = np.zeros(min(2 * RATE, samples - at))
            burst[:period] = noise(period, number)[: len(burst)]
            string = np.zeros(period + 2)
            string[[0, period, period + 1]] = 1, -0.496, -0.496
            wave[at : at + len(burst)] += loudness * scipy.signal.lfilter([1], string, burst)
        at += round(float(beats) * beat * RATE)
    return wave


def hold_music(samples: int) -> np.ndarray:
    """Greensleeves and the Ode to Joy."""
    return in_turn(samples, plucked(samples, GREENSLEEVES, 0.36), plucked(samples, ODE, 0.5))


def arpeggio(samples: int) -> np.ndarray:
    """An Alberti bass by frequency modulation (Chowning, 1973)."""
    notes = [hertz(note) for bar in ALBERTI for note in bar * 2]
    each = round(0.19 * RATE)
    frequency = np.resize(np.repeat(notes, each), samples)
    since = (np.arange(samples) % each) / RATE
    phase = 2 * np.pi * np.cumsum(frequency) / RATE
    return np.sin(phase + 2.5 * np.exp(-since / 0.08) * np.sin(2 * phase)) * np.exp(-since / 0.3)


def organ(samples: int) -> np.ndarray:
    """Held chords through a rotating loudspeaker."""
    each, wave = 3 * RATE, []
    for chord in ORGAN:
        drawbars = [sine(hertz(note) * bar, each) / bar for note in chord for bar in (0.5, 1, 1.5, 2, 3, 4)]
        wave.append(np.sum(drawbars, axis=0) * np.minimum(1, np.minimum(time(each), 3 - time(each)) / 0.05))
    return np.resize(np.concatenate(wave), samples) * (1 + 0.3 * sine(6.3, samples))


def chirps(samples: int) -> np.ndarray:
    """Trills of a bird, then linear sweeps."""
    t = time(samples)
    trill = np.sin(2 * np.pi * 3100 * t - 40 * np.cos(2 * np.pi * 17 * t)) * pulsed(samples, 0.7, 0.9)
    sweeps = scipy.signal.chirp(t % 2.5, 200, 2.5, 3800)
    return in_turn(samples, trill, sweeps)


def alarm(samples: int) -> np.ndarray:
    """A yelping siren, three high pulses, two notes in turn, the beeps of a monitor."""
    t = time(samples)
    yelp = scipy.signal.sawtooth(np.cumsum(2 * np.pi * (750 + 500 * scipy.signal.sawtooth(2 * np.pi * 3 * t)) / RATE))
    smoke = scipy.signal.square(2 * np.pi * 3150 * t) * pulsed(samples, 0.5, 0.5) * (t % 4 < 3)
    horn = scipy.signal.sawtooth(2 * np.pi * np.where(t % 1.2 < 0.6, 440, 585) * t)
    return in_turn(samples, yelp, smoke, horn, sine(960, samples) * pulsed(samples, 0.12, 0.9))


def fax(samples: int) -> np.ndarray:
    """An answer tone with reversals of its phase, frames in two frequencies, a page as shaped noise."""
    t = time(samples)
    answer = sine(2100, samples) * np.where(t % 0.9 < 0.45, 1, -1)
    bits = np.repeat(noise(samples // 53 + 1, 1) > 0, 53)[:samples]
    frames = np.sin(np.cumsum(2 * np.pi * np.where(bits, 1650, 1850) / RATE))
    band = scipy.signal.butter(4, (600, 3000), "bandpass", fs=RATE, output="sos")
    return in_turn(samples, answer, frames, scipy.signal.sosfilt(band, noise(samples, 2)))


def clicks(samples: int) -> np.ndarray:
    """A metronome, a mouse, pens and cups on a table."""
    metronome = resonate(impulses(samples, np.arange(0, samples / RATE, 0.5)), ((1750, 0.03), (2630, 0.02)))
    pairs = np.cumsum(np.abs(noise(400, 3)) + 0.15)
    mouse = resonate(impulses(samples, np.concatenate([pairs, pairs + 0.09])), ((3300, 0.006), (5200, 0.004)))
    cups = resonate(impulses(samples, np.cumsum(np.abs(noise(200, 4)) * 1.2)), ((310, 0.12), (970, 0.1), (2210, 0.05)))
    return in_turn(samples, metronome, 3 * mouse, cups)


def typing(samples: int) -> np.ndarray:
    """Bursts of keys on a hollow board."""
    strokes = np.cumsum(0.11 + 0.05 * np.abs(noise(1000, 5)) + 1.2 * (np.arange(1000) % 23 == 0))
    force = impulses(samples, strokes) + 0.4 * impulses(samples, strokes + 0.07)
    return resonate(force * (1 + 0.3 * noise(samples, 6)), ((420, 0.03), (1800, 0.012), (4600, 0.006)))


def breath(samples: int) -> np.ndarray:
    """Eighteen breaths a minute through a mouth half open, then through a nose."""
    place = time(samples) % 3.3
    envelope = np.exp(-(((place - 0.5) / 0.22) ** 2)) + 0.6 * np.exp(-(((place - 1.8) / 0.4) ** 2))
    mouth = through_mouth(noise(samples, 7), ((640, 300), (1500, 400), (2700, 600)))
    nose = through_mouth(noise(samples, 8), ((300, 200), (1100, 500), (2300, 900)))
    return in_turn(samples, mouth, nose) * envelope


def rustle(samples: int) -> np.ndarray:
    """Crackle of random impulses, dense and sparse in turn, as of paper."""
    density = 0.02 * (0.5 + 0.5 * sine(0.7, samples)) ** 4 + 2e-4
    crackle = noise(samples, 9) * (np.random.default_rng(2028).random(samples) < density)
    band = scipy.signal.butter(2, (900, 6500), "bandpass", fs=RATE, output="sos")
    return scipy.signal.sosfilt(band, crackle)


def cough(samples: int) -> np.ndarray:
    """Two coughs without a voice every 4 s."""
    place = time(samples) % 4 % 0.5
    burst = np.exp(-place / 0.05) * (place > 0.003) + 0.25 * np.exp(-(((place - 0.2) / 0.07) ** 2))
    gate = (time(samples) % 4 < 1).astype(float)
    return through_mouth(noise(samples, 10), ((700, 180), (1300, 250), (2600, 400))) * burst * gate


def wind(samples: int) -> np.ndarray:
    """Brownian noise in gusts."""
    brown = scipy.signal.lfilter([1, -1], [1, -0.98], np.cumsum(noise(samples, 11)))
    return brown * (0.2 + (0.5 + 0.5 * sine(0.23, samples)) ** 2)


def glitches(samples: int) -> np.ndarray:
    """Pink noise of which packets are lost, or repeated until the next one comes."""
    pink = scipy.signal.lfilter([0.05, -0.095, 0.045], [1, -1.95, 0.951], noise(samples, 12))
    packets = np.resize(pink, (samples // 320 + 1, 320))
    draw = np.random.default_rng(2029).random(len(packets))
    for number in np.flatnonzero(draw < 0.3):
        packets[number] = 0 if draw[number] < 0.1 else packets[number - 1]
    return packets.reshape(-1)[:samples]


RENDERINGS: dict[str, Callable[[int], np.ndarray]] = {
    "tone": tone,
    "mains hum": mains_hum,
    "old bell": old_bell,
    "electronic ring": electronic_ring,
    "call progress": call_progress,
    "DTMF": dtmf,
    "hold music": hold_music,
    "arpeggio": arpeggio,
    "organ": organ,
    "chirps and sweeps": chirps,
    "alarm": alarm,
    "fax": fax,
    "clicks": clicks,
    "typing": typing,
    "breath": breath,
    "rustle": rustle,
    "cough": cough,
    "wind": wind,
    "glitches": glitches,
}
