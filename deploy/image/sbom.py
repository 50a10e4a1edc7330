"""What is in this image? Prints a CycloneDX 1.5 list of its Python and Debian packages, with versions and licences."""

import json
import shutil
import subprocess
from importlib import metadata
from typing import Any


def python_packages() -> list[dict[str, Any]]:
    """Everything that `import` can find in this environment."""
    found = {}
    for package in metadata.distributions():
        name, version = package.metadata["Name"], package.version
        licence = package.metadata.get("License-Expression") or package.metadata.get("License") or ""
        entry: dict[str, Any] = {
            "type": "library",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name.lower().replace('_', '-')}@{version}",
        }
        # Some packages put their licence's whole text there.
        if licence and len(licence) < 80 and "\n" not in licence:
            entry["licenses"] = [{"license": {"name": licence}}]
        found[entry["purl"]] = entry
    return [found[key] for key in sorted(found)]


def debian_packages() -> list[dict[str, Any]]:
    """What dpkg knows; nothing on another system."""
    if shutil.which("dpkg-query") is None:
        return []
    form = "${db:Status-Abbrev}\t${Package}\t${Version}\t${Architecture}\n"
    lines = subprocess.run(
        ["dpkg-query", "-W", "-f", form], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    rows = [line.split("\t") for line in lines if line.startswith("ii")]
    return [
        {
            "type": "library",
            "name": name,
            "version": version,
            "purl": f"pkg:deb/debian/{name}@{version}?arch={architecture}",
        }
        for _, name, version, architecture in rows
    ]


def bill() -> dict[str, Any]:
    """The whole document."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": "voicewright"}},
        "components": python_packages() + debian_packages(),
    }


if __name__ == "__main__":
    print(json.dumps(bill(), indent=1))
