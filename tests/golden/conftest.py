"""`pytest tests/golden --renew-golden` stores what is computed now; without it, what is stored is compared."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--renew-golden", action="store_true", help="store the outputs instead of comparing them")


@pytest.fixture
def renew_golden(request: pytest.FixtureRequest) -> bool:
    """Whether the stored outputs are to be written anew."""
    return bool(request.config.getoption("--renew-golden", default=False))
