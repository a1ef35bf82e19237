"""Rooms with distance: known answers of the image method, of decay and of levels; measured responses."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import scipy.fft
import scipy.signal
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from data.acoustics import CLEAN, Scenery
from data.conversations import Conversations, Pool
from data.corpora import CorpusError
from data.rooms import (
    EARLY_SECONDS,
    SAMPLING_RATE,
    SOUND_SPEED,
    draw_rooms,
    headset_room,
    images,
    load_rooms,
    measured_room,
    reverberation_time,
    shoebox,
    wall_reflection,
)

MEASURED = "../shared/rooms"
SIZE = np.array([5.0, 4.0, 2.7])
TABLE = np.array([2.4, 1.9, 0.8])


def mirror(place: np.ndarray, size: np.ndarray, walls: tuple[int, ...]) -> np.ndarray:
    """A place reflected in each wall of a list, one wall after the other: axis 0 to 2, at 0 or at the far end."""
    place = place.copy()
    for wall in walls:
        axis, far = divmod(wall, 2)
        place[axis] = 2 * far * size[axis] - place[axis]
    return place


def test_images_are_those_of_reflecting_in_one_wall_after_the_other():
    source = np.array([1.2, 3.1, 1.5])
    distances, reflections = images(SIZE, source[None], TABLE, 30.0)
    for order in (0, 1, 2, 3):
        found = set()
        for walls in product(range(6), repeat=order):
            # In the same wall twice, or in both of an axis in either order, is where other lists arrive too.
            if all(a != b for a, b in zip(walls, walls[1:])):
                found.add(tuple(np.round(mirror(source, SIZE, walls), 9)))
        minimal = {place for place in found if _walls_between(np.array(place), source) == order}
        expected = sorted(np.linalg.norm(np.array(place) - TABLE) for place in minimal)
        np.testing.assert_allclose(np.sort(distances[0][reflections == order]), expected, atol=1e-6)


def _walls_between(image: np.ndarray, source: np.ndarray) -> int:
    """Walls of the tiled rooms between the room and an image of a source."""
    return int(np.abs(np.floor(image / SIZE)).sum())


def test_the_first_reflections_stand_where_and_as_loud_as_a_direct_sum_has_them():
    source = np.array([1.2, 3.1, 1.5])
    response = shoebox(np.random.default_rng(0), SIZE, 0.5, source[None], TABLE, 4000)[0]
    reflection, expected = wall_reflection(SIZE, 0.5), np.zeros(4000)
    direct = np.linalg.norm(source - TABLE)
    for i, j, k in product(range(-12, 13), repeat=3):
        cell = np.array([i, j, k])
        place = cell * SIZE + np.where(cell % 2, SIZE - source, source)
        distance = np.linalg.norm(place - TABLE)
        at = round((distance - direct) / SOUND_SPEED * SAMPLING_RATE)
        if at < EARLY_SECONDS * SAMPLING_RATE:
            expected[at] += reflection ** np.abs(cell).sum() / distance
    early = int(EARLY_SECONDS * SAMPLING_RATE)
    np.testing.assert_allclose(response[:early], expected[:early], atol=1e-12)


@pytest.mark.parametrize("decay", [0.2, 0.4, 0.7])
@pytest.mark.parametrize("size", [(4, 3, 2.5), (5, 4, 2.7), (8, 6, 3.2)])
def test_a_room_decays_in_the_time_it_was_asked_to(decay, size):
    size = np.array(size)
    response = shoebox(np.random.default_rng(1), size, decay, size[None] * 0.3, size * 0.6, SAMPLING_RATE)[0]
    tail = response[int(EARLY_SECONDS * SAMPLING_RATE) :]
    assert reverberation_time(tail) == pytest.approx(decay, rel=0.1)
    assert reverberation_time(response) == pytest.approx(decay, rel=0.3)


def test_the_tail_is_as_loud_as_the_images_it_stands_for():
    """Energy in the 10 ms before and after the change from images to noise, over rooms, above 100 Hz."""
    audible = scipy.signal.butter(2, 100, "highpass", fs=SAMPLING_RATE, output="sos")
    rng, early = np.random.default_rng(2), int(EARLY_SECONDS * SAMPLING_RATE)
    steps = []
    for _ in range(100):
        size = rng.uniform((3, 2.5, 2.3), (9, 7, 3.6))
        response = shoebox(rng, size, 0.5, rng.uniform(0.2, 0.8, (1, 3)) * size, rng.uniform(0.2, 0.8, 3) * size, 2000)
        energy = np.square(scipy.signal.sosfilt(audible, response[0]))
        fall = 10 ** (-6 * 0.01 / 0.5)
        steps.append(energy[early : early + 160].sum() / fall / energy[early - 160 : early].sum())
    assert 10 * abs(np.log10(np.median(steps))) < 0.5


def test_without_walls_the_level_halves_with_every_doubling_of_the_distance():
    size, microphone = np.array([100.0, 90.0, 80.0]), np.array([50.0, 45.0, 40.0])
    places = microphone + np.array([[d, 0, 0] for d in (0.5, 1.0, 2.0, 4.0)])
    response = shoebox(np.random.default_rng(3), size, 1e-3, places, microphone, 6000)
    energy = 10 * np.log10(np.square(response).sum(axis=1))
    np.testing.assert_allclose(np.diff(energy), -20 * np.log10(2), atol=0.01)
    assert energy[1] == pytest.approx(0, abs=0.01)  # amplitude 1 at a metre


@given(seed=st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=25)
def test_who_sits_further_away_is_quieter_and_more_reverberant(seed):
    rng = np.random.default_rng(seed)
    size = rng.uniform((5, 5, 2.5), (9, 7, 3.6))
    microphone = size * 0.5
    places = microphone + np.array([[0.3, 0, 0], [0.8, 0, 0], [2.0, 0, 0]])
    response = shoebox(rng, size, rng.uniform(0.2, 0.7), places, microphone, 6000)
    direct, rest = np.square(response[:, :20]).sum(axis=1), np.square(response[:, 20:]).sum(axis=1)
    assert (np.diff(direct) < 0).all()
    assert (np.diff(direct / rest) < 0).all()
    assert (np.diff(direct + rest) < 0).all()
    # the diffuse field is as loud everywhere: a theory of averages, and early reflections differ by place
    assert rest.max() / rest.min() < 4


@given(seed=st.integers(0, 2**32 - 1), measured=st.booleans())
@settings(deadline=None, max_examples=25)
def test_the_direct_sound_comes_first_and_strongest_at_a_few_metres_or_less(seed, measured):
    rng = np.random.default_rng(seed)
    rooms = [_measurement(0.9)] if measured else []
    responses = draw_rooms(rng, 8, 3, 6000, rooms)
    assert responses.shape == (8, 3, 6000) and responses.dtype == np.float32 and np.isfinite(responses).all()
    direct = np.abs(responses[:, :, 0])
    assert (direct > 0.15).all() and (direct < 4).all()
    np.testing.assert_array_equal(responses, draw_rooms(np.random.default_rng(seed), 8, 3, 6000, rooms))


def test_a_headset_hears_its_wearer_near_and_the_others_quietly_and_later():
    places = np.array([[2.0, 1.5, 1.2], [3.0, 2.5, 1.2], [2.0, 2.8, 1.2]])
    responses = headset_room(np.random.default_rng(4), SIZE, 0.4, places, 6000)
    np.testing.assert_allclose(responses[:, 0], 1, atol=0.01)
    leaked = 10 * np.log10(np.square(responses[:, 1:]).sum(axis=1))
    assert (leaked < -14).all() and (leaked > -35).all()
    for mouth, response in zip(places, responses):
        for other in places[np.any(places != mouth, axis=1)]:
            distance = np.linalg.norm(other + (0, 0, -0.05) - mouth)
            at = round((distance - 0.05) / SOUND_SPEED * SAMPLING_RATE)
            assert response[at] == pytest.approx(0.05 / distance, rel=0.5)


def _measurement(decay: float) -> np.ndarray:
    """Something like a recorded response: 3 ms of silence, a direct sound after a small one, a tail."""
    rng = np.random.default_rng(5)
    tail = 0.05 * rng.standard_normal(16_000) * 10 ** (-3 * np.arange(16_000) / SAMPLING_RATE / decay)
    return np.concatenate([np.zeros(45), [0.01, 0.1, 1.0, -0.4], tail]).astype(np.float32)


@pytest.mark.parametrize("wanted, expected", [(0.3, 0.3), (0.6, 0.6), (1.2, 0.9)])
def test_a_measured_room_begins_with_its_direct_sound_and_decays_no_slower_than_asked(wanted, expected):
    responses = measured_room(np.random.default_rng(6), _measurement(0.9), wanted, 3, 12_000)
    for response in responses:
        assert np.abs(response).argmax() == 0 or np.abs(response[0]) > 0.15
        assert reverberation_time(response[60:]) == pytest.approx(expected, rel=0.1)
    rest = np.square(responses[:, 40:]).sum(axis=1)
    np.testing.assert_allclose(rest, rest[0], rtol=0.05)  # only the direct sound falls with the distance


@pytest.mark.parametrize("samples", [1, 32, 100])
def test_a_measured_room_may_be_its_direct_sound_alone(samples):
    dirac = np.zeros(samples, np.float32)
    dirac[0] = 1
    responses = measured_room(np.random.default_rng(6), dirac, 0.3, 3, 12_000)
    assert (responses[:, 0] > 0).all() and not responses[:, 1:].any()


def test_recorded_responses_are_read_and_bad_ones_refused(tmp_path):
    with pytest.raises(CorpusError, match="has no .flac"):
        load_rooms(str(tmp_path))
    with pytest.raises(CorpusError, match="nowhere"):
        load_rooms(str(tmp_path / "nowhere"))
    stereo = np.stack([_measurement(0.5), np.zeros(16_049, np.float32)], axis=1)
    soundfile.write(tmp_path / "one.wav", stereo, 16_000, subtype="FLOAT")
    (loaded,) = load_rooms(str(tmp_path))
    np.testing.assert_array_equal(loaded, stereo[:, 0])
    soundfile.write(tmp_path / "two.wav", np.zeros(100), 16_000)
    with pytest.raises(CorpusError, match="two.wav is silent"):
        load_rooms(str(tmp_path))
    (tmp_path / "two.wav").write_bytes(b"RIFF")
    with pytest.raises(CorpusError, match="two.wav cannot be read"):
        load_rooms(str(tmp_path))


def test_rooms_that_were_measured():
    try:
        rooms = load_rooms(MEASURED)
    except CorpusError:
        pytest.skip("no measured rooms at hand")
    rng = np.random.default_rng(7)
    for room in rooms:
        responses = measured_room(rng, room, 0.5, 3, 6000)
        assert np.isfinite(responses).all()
        direct, rest = np.square(responses[:, :40]).sum(axis=1), np.square(responses[:, 40:]).sum(axis=1)
        assert (10 * np.log10(direct / rest) > -20).all()
        # the last third of the response carries little, however large the hall
        assert np.square(responses[:, 4000:]).sum() < 0.02 * rest.sum()


def test_people_in_a_window_sit_at_different_places_and_are_as_loud_as_their_distance_makes_them():
    samples = 3 * SAMPLING_RATE
    scenery = Scenery(np.random.default_rng(8), samples, Pool(audio=[np.ones(SAMPLING_RATE, np.float32)]), [])
    tracks = np.zeros((40, 2, samples), np.float32)
    tracks[:, 0, 10_000] = tracks[:, 1, 30_000] = 0.5
    talk = Conversations(tracks, np.ones((40, 2, 300), bool), [["A", "B"]] * 40)
    augmentation = replace(CLEAN, room=1.0, quiet_snr=(120, 120))
    conditions = scenery.draw(np.random.default_rng(9), 40, 2, augmentation)
    assert (conditions.seat[:, 0] != conditions.seat[:, 1]).all()
    responses = scipy.fft.irfft(scenery.rooms, scenery.size)
    for heard, room, seat in zip(scenery.apply(talk, conditions), conditions.room, conditions.seat):
        direct = responses[room, seat, 0]
        tail = responses[room, seat[0], 20_000]  # of the first, under the second
        assert heard[30_000] / heard[10_000] == pytest.approx((direct[1] + tail) / direct[0], rel=0.02)
    spread = 20 * np.log10(responses[conditions.room[:, None], conditions.seat, 0])
    assert np.ptp(spread, axis=1).max() > 6
