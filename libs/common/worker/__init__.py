"""How is a command worked on? Lanes, leases, heartbeats, retries and poison, the same for every service.

A service registers one handler per command. The handler is given `Work`, makes files under `work.folder`, and returns
`Done`; the runtime alone commits, publishes and acknowledges:

    take ▶ lease ▶ StepStarted ▶ handler ▶ manifest ▶ commit (compare-and-set) ▶ finish hook ▶ event ▶ ack

Whatever dies in between, the command comes again: an uncommitted step is done anew by the next owner, which may take
over finished parts of earlier attempts; a committed step only repeats the finish hook and the event, both idempotent.
"""

from libs.common.worker.taking import Worker
from libs.common.worker.telling import FinishHook, Handler

__all__ = ["FinishHook", "Handler", "Worker"]
