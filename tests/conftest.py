"""What tests of several files share."""

import pytest


@pytest.fixture
def cell(record_property):
    """Writes one cell of the matrix of faults, as `tests/fault_matrix.py` prints it."""

    def write(fault: str, place: str, outcome: str) -> None:
        record_property("cell", (fault, place, outcome))

    return write
