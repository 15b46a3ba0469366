"""Journeys that print their wall time, and fail if they took more than their minutes.

The minutes are processor time, which other work on the machine does not prolong. On an idle machine
a command takes about as long by the clock, or less if it uses several cores.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from journey import Journey


@pytest.fixture
def journey(
    request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Iterator[Journey]:
    """A journey within the processor minutes of the test's mark, ``minutes(5)``."""

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
