"""The counts of a campaign: cases tried, right and wrong, and how to repeat a wrong one."""

import argparse
import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn


class Campaign:
    """The cases of one campaign.

    Args:
        name: its module.
        count: number of cases if the command line gives none.
        description: first line of ``--help``.
        sequence: what the cases are called if each follows from those before, so that none can be
            repeated alone; None if they are independent.

    Attributes:
        count: number of cases.
        seed: seed of all that is random.
        only: number of the case to run, if it is a single one.
    """

    def __init__(
        self, name: str, *, count: int, description: str, sequence: str | None = None
    ) -> None:
        parser = argparse.ArgumentParser(f"python -m tests.campaigns.{name}", None, description)
        self._counted = sequence or "count"
        parser.add_argument(
            f"--{self._counted}",
            dest="count",
            type=int,
            default=count,
            help=f"{sequence or 'cases'}, %(default)s by default",
        )
        parser.add_argument("--seed", type=int, default=0)
        if sequence is None:
            parser.add_argument("--only", type=int, help="number of a single case")
        arguments = parser.parse_args(namespace=argparse.Namespace(only=None))
        self.name = name
        self.count, self.seed, self.only = arguments.count, arguments.seed, arguments.only
        self._tried: Counter[str] = Counter()
        self._wrong: Counter[str] = Counter()
        self._start = time.monotonic()

    @property
    def numbers(self) -> list[int]:
        """The numbers of the cases to run."""
        return list(range(self.count)) if self.only is None else [self.only]

    def count_case(
        self, kind: str, fault: str | None, *, number: int | None = None, times: int = 1
    ) -> None:
        """Count a case.

        Args:
            kind: what was tried.
            fault: what went wrong, if anything.
            number: the case, by which it can be repeated alone.
            times: how many such cases it stands for.
        """
        self._tried[kind] += times
        if fault is not None:
            self._wrong[kind] += times
            only = "" if number is None else f" --only={number}"
            print(
                f"WRONG: {kind}: {fault}\n    again: python -m tests.campaigns.{self.name} "
                f"--seed={self.seed} --{self._counted}={self.count}{only}",
                flush=True,
            )

    def finish(self) -> NoReturn:
        """Print the result as one line of JSON, and end the process."""
        tried, wrong = self._tried.total(), self._wrong.total()
        result = {
            "campaign": self.name,
            "tried": tried,
            "right": tried - wrong,
            "wrong": wrong,
            "kinds": dict(sorted(self._tried.items())),
            "seed": self.seed,
            "minutes": round((time.monotonic() - self._start) / 60, 1),
            "command": " ".join(["python -m", f"tests.campaigns.{self.name}", *sys.argv[1:]]),
        }
        print(json.dumps(result), flush=True)
        sys.exit(1 if wrong else 0)

    @contextlib.contextmanager
    def directory(self) -> Iterator[Path]:
        """Yield a temporary directory, which is kept if a case was wrong."""
        path = Path(tempfile.mkdtemp(prefix=f"campaign-{self.name}-"))
        try:
            yield path
        except BaseException:
            print(f"kept: {path}", flush=True)
            raise
        if self._wrong:
            print(f"kept: {path}", flush=True)
        else:
            shutil.rmtree(path)
