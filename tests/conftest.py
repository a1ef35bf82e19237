"""What tests of several files share, and the kinds they are of."""

import os
import re

import pytest
from hypothesis import HealthCheck, settings

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

KINDS = ("slow", "training", "process", "hub", "page", "documents")
"""Marks of pyproject.toml, for a test or as `pytestmark` for a file. Tests with none of them are unit tests."""

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_ignore_collect(collection_path, config):
    """With `pytest -m unit` files that are of another kind as a whole are not even imported."""
    if config.option.markexpr == "unit" and collection_path.suffix == ".py":
        return bool(re.search(r"^pytestmark = ", collection_path.read_text(), re.MULTILINE)) or None
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if not any(item.get_closest_marker(kind) for kind in KINDS):
            item.add_marker(pytest.mark.unit)


@pytest.fixture
def cell(record_property):
    """Writes one cell of the matrix of faults, as `tests/fault_matrix.py` prints it."""

    def write(fault: str, place: str, outcome: str) -> None:
        record_property("cell", (fault, place, outcome))

    return write
