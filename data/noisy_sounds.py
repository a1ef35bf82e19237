"""Sounds without a pitch that are nobody's speech: knocks, breath, rustle, keys, coughs, wind, faults, by rule.

Each is a function of a generator and a length in samples at 16 kHz, and gives a float32 waveform at any level.
"""

import numpy as np
import scipy.fft

from data.tonal_sounds import RATE, log_uniform, partials

BREATH_HZ = (0.2, 0.5)
POINTS = np.array([0, 60, 125, 250, 500, 1000, 2000, 4000, 8000])
"""Frequencies in Hz at which the spectra of noises are told."""


def noise(rng: np.random.Generator, samples: int, decibels) -> np.ndarray:
    """Noise with the spectrum that goes through these levels at `POINTS`."""
    size = scipy.fft.next_fast_len(samples, real=True)
    bins = size // 2 + 1
    spectrum = rng.standard_normal(2 * bins, dtype=np.float32).view(np.complex64)
    grid = np.log2(1 + np.linspace(0, RATE / 2, bins))
    spectrum *= (10 ** (np.interp(grid, np.log2(1 + POINTS), decibels) / 20)).astype(np.float32)
    return scipy.fft.irfft(spectrum, size)[:samples]


def slow(rng: np.random.Generator, samples: int, hertz: float) -> np.ndarray:
    """Noise of unit variance that changes about so many times a second: straight lines between random points."""
    points = rng.standard_normal(int(samples / RATE * hertz) + 3)
    return np.interp(np.arange(samples) * (hertz / RATE), np.arange(len(points)), points).astype(np.float32)


def scatter(samples: int, grains: list[np.ndarray], places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One of the grains at each place, at levels that differ by some decibels."""
    wave = np.zeros(samples + max(map(len, grains)), np.float32)
    which, level = rng.integers(len(grains), size=len(places)), 10 ** (rng.normal(0, 4, len(places)) / 20)
    for at, grain, amplitude in zip(places.astype(np.int64), which, level):
        wave[at : at + len(grains[grain])] += np.float32(amplitude) * grains[grain]
    return wave[:samples]


def places(rng: np.random.Generator, samples: int, rate: float, evenness: float = 0.0) -> np.ndarray:
    """Times in samples, `rate` a second: as they fall, or as evenly as a clock at 1."""
    gaps = evenness + (1 - evenness) * rng.exponential(1, int(samples / RATE * rate * 2) + 8)
    times = (np.cumsum(gaps) - gaps[0] * rng.random()) * RATE / rate
    return times[times < samples]


def _resonances(rng: np.random.Generator, low: float, high: float, seconds: float) -> np.ndarray:
    """Something struck: a few modes that die out."""
    samples = int(6 * seconds * RATE)
    time = np.arange(samples, dtype=np.float32) / RATE
    wave = np.zeros(samples, np.float32)
    for frequency in log_uniform(rng, low, high, rng.integers(2, 6)):
        wave += (
            rng.normal()
            * np.sin(2 * np.pi * np.float32(frequency) * time)
            * np.exp(-time / rng.uniform(0.3, 1) / seconds)
        )
    wave[:8] *= np.linspace(0, 1, 8, dtype=np.float32)
    return wave


def clicks(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Mouse and switch clicks, ticks, lips that part, drops: milliseconds each."""
    grains = [_resonances(rng, 600, 7000, log_uniform(rng, 0.0005, 0.008)) for _ in range(4)]
    rate, evenness = log_uniform(rng, 0.5, 12), (0.0, 0.0, 0.98)[rng.integers(3)]
    return scatter(samples, grains, places(rng, samples, rate, evenness), rng)


def knocks(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Knuckles on wood, cups put down, doors, bumps against the table of the microphone."""
    grains = [_resonances(rng, 60, 1500, log_uniform(rng, 0.008, 0.06)) for _ in range(3)]
    return scatter(samples, grains, places(rng, samples, log_uniform(rng, 0.4, 5), rng.uniform(0, 0.9)), rng)


def typing(rng: np.random.Generator, samples: int) -> np.ndarray:
    """A keyboard: a stroke and, some 80 ms later, its return; words and pauses."""
    strokes = [_resonances(rng, 300, 6000, rng.uniform(0.002, 0.012)) for _ in range(5)]
    gap = int(rng.uniform(0.05, 0.12) * RATE)
    grains = []
    for stroke in strokes:
        grain = np.zeros(gap + len(stroke), np.float32)
        grain[: len(stroke)] += stroke
        grain[gap:] += rng.uniform(0.1, 0.6) * stroke
        grains.append(grain)
    at = places(rng, samples, rng.uniform(4, 11), rng.uniform(0.2, 0.7))
    return scatter(samples, grains, at[slow(rng, samples, 0.7)[at.astype(np.int64)] > -0.7], rng)


def breath(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Somebody who breathes beside a microphone: in, sharper, and out, longer and duller, every few seconds."""
    cycles = np.arange(samples) * (rng.uniform(*BREATH_HZ) / RATE) + rng.random()
    cycles += 0.08 * slow(rng, samples, 0.3)
    place = (cycles % 1).astype(np.float32)
    inward, outward = rng.uniform(0.15, 0.35), rng.uniform(0.2, 0.5)
    inhale = np.sin(np.pi * np.clip(place / np.float32(inward), 0, 1))
    exhale = np.sin(np.pi * np.clip((place - np.float32(inward + 0.05)) / np.float32(outward), 0, 1) ** 0.6)
    throat = rng.normal(0, 5, len(POINTS)) + (-30, -25, -15, -6, 0, 0, -2, -8, -20)
    bright = throat + np.linspace(-6, 8, len(POINTS)) * rng.uniform(0.3, 1.2)
    wave = noise(rng, samples, bright) * np.square(inhale) * np.float32(rng.uniform(0.2, 1.5))
    return wave + noise(rng, samples, throat) * np.square(exhale)


def rustle(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Paper, clothes on a microphone, bags: crackling noise in bursts."""
    level = 1.5 * slow(rng, samples, log_uniform(rng, 30, 300)) + 2 * slow(rng, samples, log_uniform(rng, 1, 6))
    burst = np.clip(slow(rng, samples, 0.8) + rng.uniform(-0.5, 1), 0, 1)
    colour = rng.normal(0, 4, len(POINTS)) + np.linspace(-30, 0, len(POINTS)) * rng.uniform(-0.3, 1.3)
    return noise(rng, samples, colour) * np.exp(level) * burst


def coughs(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Coughs, sneezes and throats cleared without a voice: a sudden burst through the mouth, once or in a row."""
    length = int(0.6 * RATE)
    time = np.arange(length, dtype=np.float32) / RATE
    grains = []
    for _ in range(2):
        mouth = rng.normal(0, 4, len(POINTS)) + (-40, -30, -18, -8, 0, 2, 0, -6, -14)
        burst = noise(rng, length, mouth) * np.exp(-time / rng.uniform(0.03, 0.12)) * np.minimum(time / 0.004, 1)
        rest = noise(rng, length, mouth - 6) * np.sin(np.pi * np.clip(time / rng.uniform(0.25, 0.6), 0, 1))
        grains.append(burst + rng.uniform(0, 0.5) * rest)
    first = places(rng, samples, rng.uniform(0.25, 1))
    row = first[:, None] + np.arange(rng.integers(1, 4)) * rng.uniform(0.25, 0.5) * RATE
    return scatter(samples, grains, row[row < samples], rng)


def wind(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Wind or breath that blows on a microphone: rumble below some hundred hertz, in gusts."""
    fall = rng.uniform(0.6, 1.4)
    rumble = noise(rng, samples, np.array([-6, 0, -3, -10, -20, -30, -40, -50, -60]) * fall)
    gusts = np.exp(rng.uniform(0.5, 1.5) * slow(rng, samples, log_uniform(rng, 0.5, 5)))
    hiss = noise(rng, samples, np.linspace(-30, -40, len(POINTS)))
    return (rumble + hiss) * gusts


def hiss(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Ventilators, tape, radio between stations: noise of any colour, perhaps with the pulse of a motor."""
    wave = noise(rng, samples, np.linspace(0, rng.uniform(-40, 12), len(POINTS)) + rng.normal(0, 5, len(POINTS)))
    if rng.random() < 0.4:
        wave *= 1 + rng.uniform(0.1, 0.9) * partials(log_uniform(rng, 1, 40), samples, [1])
    return wave


def glitches(rng: np.random.Generator, samples: int) -> np.ndarray:
    """A digital link that fails: short buffers repeated, crackle, and holes in a hiss."""
    wave = np.zeros(samples, np.float32)
    for at in places(rng, samples, log_uniform(rng, 0.6, 4)).astype(np.int64):
        part = wave[at : at + int(rng.uniform(0.02, 0.4) * RATE)]
        buffer = rng.standard_normal(int(log_uniform(rng, 16, 480)), dtype=np.float32)
        part[:] = np.resize(np.round(buffer * rng.uniform(0.3, 3)), len(part)) * np.float32(rng.uniform(0.2, 1))
    cracks = places(rng, samples, log_uniform(rng, 0.5, 60)).astype(np.int64)
    wave[cracks] += 3 * rng.standard_normal(len(cracks), dtype=np.float32)
    hole = slow(rng, samples, log_uniform(rng, 2, 12)) > 0
    return wave + np.float32(0.05) * rng.standard_normal(samples, dtype=np.float32) * hole
