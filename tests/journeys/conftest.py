"""Journeys that print their wall time, and fail if they took more than their minutes.

The minutes are those of processors, which other work on the machine does not prolong: on an idle
one a command takes about as long by the clock, and less where it uses several cores.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from journey import Journey


@pytest.fixture
def journey(
    request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Iterator[Journey]:
    """A journey in at most the minutes of processors of the test's mark, ``minutes(5)``."""

    def say(line: str) -> None:
        with capsys.disabled():
            print(line)

    minutes = request.node.get_closest_marker("minutes").args[0]
    say(f"\n{request.node.name}, at most {minutes} minutes of processors:")
    journey = Journey(tmp_path, say)
    yield journey
    worked = f"{journey.processor_seconds:6.1f} s of processors"
    say(f"  {journey.seconds:6.1f} s  {worked}  altogether")
    assert journey.processor_seconds < 60 * minutes
