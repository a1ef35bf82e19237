"""Print what faults of the network do at each place where a run reads or writes, as the tests find it.

python tests/fault_matrix.py        # some minutes; the table in docs/RESUME.md
"""

import sys
from collections import defaultdict
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common.flags import FlagParser

TESTS = Path(__file__).resolve().parent


class Cells:
    """Collects the cells that passing tests write, and the names of those that fail."""

    def __init__(self):
        self.outcomes: dict[tuple[str, str], list[str]] = defaultdict(list)
        self.failed: list[str] = []

    def pytest_runtest_logreport(self, report) -> None:
        if report.failed:
            self.failed.append(report.nodeid)
        if report.when == "teardown" and report.nodeid not in self.failed:
            for name, value in report.user_properties:
                if name == "cell":
                    fault, place, outcome = value
                    self.outcomes[fault, place].append(outcome)


def main() -> int:
    FlagParser(description=__doc__).parse_args()
    cells = Cells()
    files = [str(TESTS / name) for name in ("test_faults.py", "test_checkpoints.py")]
    pytest.main(["-q", "-p", "no:cacheprovider", *files], plugins=[cells])
    faults, places = ([*dict.fromkeys(key[n] for key in cells.outcomes)] for n in (0, 1))
    print("\n| fault | " + " | ".join(places) + " |\n| --- |" + " --- |" * len(places))
    for fault in faults:
        outcomes = ("; ".join(dict.fromkeys(cells.outcomes.get((fault, place), ["–"]))) for place in places)
        print(f"| {fault} | " + " | ".join(outcomes) + " |")
    return len(cells.failed)


if __name__ == "__main__":
    sys.exit(main())
