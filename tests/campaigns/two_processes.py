"""Two processes of a run, to one of which something happens at a random moment.

One is killed, stopped or terminated, fails, hangs, or is started alone or for another experiment.
Each time both must end with the documented status, within 30 s, and with one line.
"""

import random
import sys
from pathlib import Path

from tests.campaigns.campaign import Campaign

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments/hosts"))

from pairs import SCENARIOS


def main() -> None:
    """Try the scenarios in turn, each with another victim, moment and barrier."""
    campaign = Campaign("two_processes", count=50, description=(__doc__ or "").splitlines()[0])
    names = list(SCENARIOS)
    with campaign.directory() as directory:
        for number in campaign.numbers:
            generator = random.Random(f"{campaign.seed} {number}")
            kind = names[number % len(names)]
            barrier = generator.choice(["collective", "service"])
            place = directory / str(number)
            place.mkdir()
            fault = SCENARIOS[kind](
                place, generator.randrange(2), generator.uniform(0, 1.5), f"--barrier={barrier}"
            )
            campaign.count_case(kind, fault, number=number)
            print(f"{number} {kind}: {fault or 'right'}", flush=True)
    campaign.finish()


if __name__ == "__main__":
    main()
