"""Is the service of this container ready? Exit status 0, or 1 with the parts that are missing.

Standard library only: it runs every few seconds beside work that needs the processor.
"""

import http.client
import json
import os
import sys

PORTS = {"gateway": 8000, "ingest": 8001, "trainer": 8002, "preprocessor": 8003, "inference": 8004}
SECONDS = 6


def missing(port: int) -> str:
    """Asks `/readyz` on this machine; '' when the service is ready, otherwise why it is not."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        body = json.loads(answer.read() or b"{}")
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"no answer on port {port}: {error}"
    finally:
        connection.close()
    if answer.status == 200:
        return ""
    checks = body.get("checks", []) if isinstance(body, dict) else []
    parts = [f"{check['name']}: {check['detail']}" for check in checks if not check["ok"]]
    return "; ".join(parts) or f"status {answer.status} on port {port}"


if __name__ == "__main__":
    reason = missing(int(os.environ.get("PORT") or PORTS[os.environ["SERVICE"]]))
    print(reason or "ready")
    sys.exit(1 if reason else 0)
