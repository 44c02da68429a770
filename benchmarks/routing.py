"""What routing promises, measured over real HTTP: a gateway process, upstreams that misbehave, and clients.

    python -m benchmarks.routing faults        # client success while 10 % of the upstream calls fail
    python -m benchmarks.routing outage        # upstream calls for each request while every upstream is down
    python -m benchmarks.routing isolation     # one provider's p99 while 500 calls to another one hang
    python -m benchmarks.routing distribution  # shares of two deployments with weights 3 to 1
    python -m benchmarks.routing reload        # 50 reloads under load, half of them of invalid files
    python -m benchmarks.routing hedge         # p99 without and with hedging, and what is booked

The exit code is 1 if a target is missed.

Claim: README: every request is retried sensibly, deployments are isolated, a changed file disturbs no request.
Short: faults --requests 400 --seconds 3 --hung 50 --reloads 5
Short: outage --requests 400 --seconds 3 --hung 50 --reloads 5
Short: isolation --requests 400 --seconds 3 --hung 50 --reloads 5
Short: distribution --requests 400 --seconds 3 --hung 50 --reloads 5
Short: reload --requests 400 --seconds 3 --hung 50 --reloads 5
Short: hedge --requests 400 --seconds 3 --hung 50 --reloads 5
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from benchmarks.load import Figure
from benchmarks.routing_changes import distribution, hedge, reload
from benchmarks.routing_failures import faults, isolation, outage


async def run(given: argparse.Namespace) -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        match given.what:
            case "faults":
                return [await faults(directory, given.requests, given.clients)]
            case "outage":
                return await outage(directory, given.rate, given.seconds)
            case "isolation":
                return [await isolation(directory, given.hung, given.rate, given.seconds)]
            case "distribution":
                return [await distribution(directory, given.requests, given.clients)]
            case "reload":
                return [await reload(directory, given.reloads, given.clients)]
            case _:
                return await hedge(directory, given.requests, given.clients)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("faults", "outage", "isolation", "distribution", "reload", "hedge"))
    parser.add_argument("--requests", type=int, default=4000, help="for faults, distribution and hedge")
    parser.add_argument("--clients", type=int, default=16, help="at a time, for faults, distribution, reload and hedge")
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second, for outage and isolation")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each phase, for outage and isolation")
    parser.add_argument("--hung", type=int, default=500, help="calls that hang, for isolation")
    parser.add_argument("--reloads", type=int, default=50)
    given = parser.parse_args()
    figures = asyncio.run(run(given))
    for figure in figures:
        print(f"{given.what}: {figure.text}{'' if figure.is_reached else '  MISSED'}")
    sys.exit(0 if all(figure.is_reached for figure in figures) else 1)


if __name__ == "__main__":
    main()
