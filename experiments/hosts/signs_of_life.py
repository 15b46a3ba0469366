"""Signs of life: which processes have sent none for too long."""

import time

ALIVE_SECONDS = 2.0  # between two signs
# A process that is silent for this long is lost: it stopped, or the network is broken.
SILENT_SECONDS = 20.0

WHY_SILENT = f"no sign of life for {SILENT_SECONDS:.0f} s"


class SignsOfLife:
    """The times when processes were last heard. Call `find_silent` every `ALIVE_SECONDS`."""

    def __init__(self) -> None:
        self._heard: dict[int, float] = {}
        self._checked = time.monotonic()

    def hear(self, process: int) -> None:
        """Note a sign of a process."""
        self._heard[process] = time.monotonic()

    def find_silent(self) -> list[int]:
        """Return the processes that have been silent for too long.

        If this process itself was suspended, and so heard nobody, the silence of all starts anew.
        """
        now = time.monotonic()
        if now - self._checked > 2 * ALIVE_SECONDS:
            self._heard = dict.fromkeys(self._heard, now)
        self._checked = now
        return [one for one, heard in self._heard.items() if now - heard > SILENT_SECONDS]
