"""`scripts/check-fixtures DIR`: does libs/voice give the reference's numbers? A table, JSON, and an exit status.

0: every quantity agrees, and nothing in the folders was left unchecked. 1: something does not agree, is of an unknown
kind, or is unknown to the checks; or there is no fixture at all. 2: the arguments are wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

# Before torch is imported: threads that wait give their core away (docs/decisions/0045).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="scripts/check-fixtures", description="Compare libs/voice with reference data."
    )
    parser.add_argument("folder", type=Path, help="holds one folder per fixture group, and recipe.json")
    parser.add_argument("--json", type=Path, help="write every row there")
    parser.add_argument("--markdown", type=Path, help="renew the generated table of this document")
    parser.add_argument("--quiet", action="store_true", help="print only what failed, and the last line")
    options = parser.parse_args(arguments)
    if not options.folder.is_dir():
        parser.error(f"{options.folder} is no folder")

    from libs.voice.reference import report
    from libs.voice.reference.run import check_folder

    print(report.heading())
    outcome = check_folder(
        options.folder, lambda row: print(report.line(row), flush=True) if not options.quiet or not row.ok else None
    )
    print(report.summary(outcome))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        document = {"folder": str(options.folder), "date": datetime.now(UTC).isoformat(timespec="seconds")}
        options.json.write_text(json.dumps(document | outcome.as_dict(), indent=1) + "\n", encoding="utf-8")
    if options.markdown:
        report.renew_document(options.markdown, outcome, datetime.now(UTC).date())
    return 0 if outcome.ok else 1


if __name__ == "__main__":
    sys.exit(main())
