"""Signs of life: who is silent for too long, and when nobody is."""

import os

from gatewright.cli.pulse import Pulses


def look(pulses: Pulses, *times: float) -> None:
    """The one that watches looks at these times."""
    for now_s in times:
        pulses.look(now_s)


def seconds(first: int, last: int) -> list[float]:
    """Once in each."""
    return [float(one) for one in range(first, last + 1)]


def test_one_that_beats_is_not_silent_and_its_neighbour_is() -> None:
    """Beyond the bound, not before."""
    pulses = Pulses(2, 30.0)
    for now_s in seconds(0, 30):
        pulses.beat(1)
        pulses.look(now_s)
    assert (pulses.is_silent(0), pulses.is_silent(1)) == (False, False)
    look(pulses, 31.0)
    assert (pulses.is_silent(0), pulses.is_silent(1)) == (True, False)


def test_a_sign_of_life_ends_the_silence() -> None:
    """The count begins anew, also for another process in the same place."""
    pulses = Pulses(2, 30.0)
    look(pulses, *seconds(0, 40))
    assert pulses.is_silent(0)
    pulses.beat(0)
    look(pulses, 41.0)
    assert not pulses.is_silent(0)
    assert pulses.is_silent(1)
    pulses.forget(1)
    look(pulses, *seconds(42, 71))
    assert not pulses.is_silent(1)


def test_who_watches_has_to_be_there_itself() -> None:
    """After a pause of all, such as a suspended machine, nobody is taken for stuck."""
    pulses = Pulses(1, 30.0)
    look(pulses, 0.0, 1.0, 3_600.0)
    assert not pulses.is_silent(0)


def test_many_looks_are_as_good_as_few() -> None:
    """It is time that counts."""
    pulses = Pulses(1, 30.0)
    look(pulses, *(one / 100 for one in range(3_000)))
    assert not pulses.is_silent(0)
    look(pulses, 30.5)
    assert pulses.is_silent(0)


def test_a_short_bound_has_short_pauses() -> None:
    """Eight beats within it, and one in a second is enough for any."""
    assert (Pulses(1, 1.0).pause_s, Pulses(1, 30.0).pause_s) == (0.125, 1.0)


def test_a_beat_is_seen_in_another_process() -> None:
    """That is what it is for."""
    pulses = Pulses(1, 1.0)
    look(pulses, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
    assert pulses.is_silent(0)
    pid = os.fork()
    if not pid:
        pulses.beat(0)
        os._exit(0)
    os.waitpid(pid, 0)
    look(pulses, 1.5)
    assert not pulses.is_silent(0)
