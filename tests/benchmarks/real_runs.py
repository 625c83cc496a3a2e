"""All benchmarks on the recorded runs of real 4-bit models: calibration, certificates, routing.

    python tests/benchmarks/real_runs.py [FOLDER] [--splits N] [--draws N] [--only PART]

FOLDER holds quantized_runs/*.npz (default: the data folder beside the repository). It prints the
Markdown tables of the three parts one after the other; every part can also be run by itself.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import calibration_runs
import certificate_runs
import routing_runs

PARTS = ("calibration", "certificates", "routing")


def main() -> None:
    """Print the tables of the parts asked for."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("folder", nargs="?", type=Path, default=calibration_runs.DATA)
    options.add_argument("--splits", type=int, default=10)
    options.add_argument("--draws", type=int, default=200, help="of few labels, of certificates")
    options.add_argument("--only", choices=PARTS)
    given = options.parse_args()
    runs = given.folder / "quantized_runs"
    if given.only in (None, "calibration"):
        print(
            calibration_runs.table(calibration_runs.rows(given.folder, given.splits, given.draws))
        )
    if given.only in (None, "certificates"):
        print("\n" + certificate_runs.table(certificate_runs.rows(runs, given.draws)))
    if given.only in (None, "routing"):
        print("\n" + routing_runs.table(routing_runs.rows(runs, 5 * given.splits)))


if __name__ == "__main__":
    main()
