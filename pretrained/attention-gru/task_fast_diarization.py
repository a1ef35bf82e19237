"""What a network is asked about a window: one definition for network, stream, scoring and cards."""

from dataclasses import dataclass

from .settings_fast_diarization import check_number

MOST_TRACKS = 8
"""Speakers that may be told apart in one window: losses and linking try every order of them."""
SILENT, ALONE = 0.10, 0.30
"""Shares of windows without anybody, most of them a sound, and with one speaker where three or more are told apart."""
RARER = 0.6
"""How much less common windows with one speaker more are, from two on: what 3 s of conversation can still hold."""


@dataclass(frozen=True)
class Task:
    """Who is active in a window, among so many.

    Args:
        num_speakers: speakers told apart in one window.
        max_simultaneous: most of them active in one frame; never more than there are.
        window_seconds: length of a window.
        shares: wanted shares of training windows with 0, 1, ... `num_speakers` speakers; empty for those of
            [`usual_shares`], `None` for what the measured turn-taking gives.

    Raises:
        ValueError: numbers out of their range, or shares that are not one for each number of them and 1 in all.
    """

    num_speakers: int = 2
    max_simultaneous: int = 2
    window_seconds: float = 3.0
    shares: tuple[float, ...] | None = ()

    def __post_init__(self):
        check_number("num_speakers", self.num_speakers, 1, MOST_TRACKS, whole=True)
        check_number("max_simultaneous", self.max_simultaneous, 1, MOST_TRACKS, whole=True)
        check_number("window_seconds", self.window_seconds, 0.1, 60)
        object.__setattr__(self, "max_simultaneous", min(self.max_simultaneous, self.num_speakers))
        if self.shares == ():
            object.__setattr__(self, "shares", usual_shares(self.num_speakers))
        if self.shares is None:
            return
        if len(self.shares) != self.num_speakers + 1:
            raise ValueError(
                f"shares must be {self.num_speakers + 1} numbers, of windows with 0 to {self.num_speakers} speakers, "
                f"got {len(self.shares)}"
            )
        if min(self.shares) < 0 or abs(sum(self.shares) - 1) > 1e-6:
            raise ValueError(f"shares must be 0 or more and 1 in all, got {', '.join(map(str, self.shares))}")


def usual_shares(num_speakers: int) -> tuple[float, ...]:
    """Shares of training windows with 0, 1, ... `num_speakers` speakers.

    Cut out of talk anywhere, two windows of three have one speaker and teach little of who speaks: of three people
    11 % of 3 s have nobody, 62 one, 19 two and 8 three speakers, of four people 1 % four. Here every further speaker
    from the second on is 0.6 times as common as the one before: 10, 30, 37 and 23 % for three.
    """
    if num_speakers == 1:
        return SILENT, 1 - SILENT
    if num_speakers == 2:
        return SILENT, 0.36, 0.54
    weights = [RARER**n for n in range(num_speakers - 1)]
    together = [round((1 - SILENT - ALONE) * weight / sum(weights), 2) for weight in weights[1:]]
    return SILENT, ALONE, round(1 - SILENT - ALONE - sum(together), 2), *together
