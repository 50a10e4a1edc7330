"""A stand-in for a service: answers /readyz and /livez, and misbehaves as its settings say.

STAND_IN: "" ready at once · "never" never ready · "crash" ends with status 7 · "stubborn" ignores SIGTERM
"child" has a child in a session of its own, which ignores SIGTERM and writes its id to $DATA_ROOT/child.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MODE = os.environ.get("STAND_IN", "")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        ok = MODE != "never"
        checks = [{"name": "broker", "ok": ok, "detail": "connected" if ok else "the cupboard is locked"}]
        if self.path == "/environment":
            body = json.dumps({k: v for k, v in os.environ.items() if k.isupper()}).encode()
        else:
            body = json.dumps({"status": "ready" if ok else "not ready", "checks": checks}).encode()
        self.send_response(200 if ok else 503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


def main() -> None:
    if MODE == "crash":
        print("the floor gave way")
        sys.exit(7)
    if MODE == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if MODE == "child":
        code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
        child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
        folder = Path(os.environ["DATA_ROOT"])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "child").write_text(str(child.pid))
    print("stand-in is up", flush=True)
    ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()


if __name__ == "__main__":
    main()
