"""What does a training cost? The formulas of the customer's document (F-114 to F-116), in US dollars.

Prices of others change: these are for comparing before a choice, and the provider's bill is what counts.
"""

from __future__ import annotations

STORAGE_PER_GB = 0.02
TRANSFER_PER_GB = 0.09

GOOGLE_TRAINING = 300.0
GOOGLE_MINUTES = 30.0
GOOGLE_PER_MINUTE = 0.10
GOOGLE_CALLS = 50.0

OPENAI_PER_1000_TOKENS = 0.008
OPENAI_CALLS = 25.0

Parts = dict[str, float]


def gpu_parts(gpu_hours: float, storage_gb: float, transfer_gb: float, hour_price: float = 2.5) -> Parts:
    """F-114: `gpu_hours` at `hour_price`, storage, transfer."""
    return {
        "gpu": gpu_hours * hour_price,
        "storage": storage_gb * STORAGE_PER_GB,
        "transfer": transfer_gb * TRANSFER_PER_GB,
    }


def google_parts(minutes: float, storage_gb: float) -> Parts:
    """F-115: a fixed fee, each minute of speech above thirty, storage, calls."""
    return {
        "training": GOOGLE_TRAINING,
        "minutes": max(0.0, minutes - GOOGLE_MINUTES) * GOOGLE_PER_MINUTE,
        "storage": storage_gb * STORAGE_PER_GB,
        "calls": GOOGLE_CALLS,
    }


def openai_parts(tokens: float, storage_gb: float) -> Parts:
    """F-116: training tokens, storage, calls."""
    return {
        "tokens": tokens / 1000 * OPENAI_PER_1000_TOKENS,
        "storage": storage_gb * STORAGE_PER_GB,
        "calls": OPENAI_CALLS,
    }


def total(parts: Parts) -> float:
    """The sum, rounded to a hundredth of a cent."""
    return round(sum(parts.values()), 4)
