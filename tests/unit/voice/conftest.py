"""Networks in tests run beside other tests: threads that wait must not burn the cores that others need."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For tests of what is the same bit by bit: with several threads sums may be rounded in another order."""
    import torch  # only now, so that it finds the variable above

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
