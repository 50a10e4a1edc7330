"""How do services reach each other? The one door to NATS JetStream: streams, lanes, buckets, feeds.

Streams and buckets are those of the architecture page. Everything here survives a broker that goes away: sending raises
Unavailable and is repeated by who owns the message (the outbox, a worker that has not acknowledged), reading goes on
where it was.
"""

from libs.common.bus.broker import NOT_REACHED, without_secrets
from libs.common.bus.buckets import Bucket, Entry
from libs.common.bus.connection import Bus
from libs.common.bus.deliveries import Delivery
from libs.common.bus.queues import CommandQueue
from libs.common.bus.receiving import DeadLetter

__all__ = ["NOT_REACHED", "Bucket", "Bus", "CommandQueue", "DeadLetter", "Delivery", "Entry", "without_secrets"]
