"""Networks in tests run beside other tests: threads that wait must not burn the cores that others need."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
