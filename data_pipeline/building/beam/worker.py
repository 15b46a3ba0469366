"""A worker process of the local runner: Beam's own, without its log lines about each start.

python -m data_pipeline.building.beam.worker
"""

import logging
import sys


def main() -> None:
    """Work until the runner closes the connection; the runner reports the errors."""
    silent = logging.StreamHandler()
    silent.setLevel(logging.CRITICAL)
    logging.getLogger().addHandler(silent)  # otherwise Beam adds a handler that prints everything
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    main()
