"""Servers with a cluster's configuration on this machine: addresses and folders are replaced, nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from scripts.processes import free_port
from tests.waiting import PATIENCE, wait_until

PASSWORD = "1234567890"  # of every user: digits alone, which must stay text
USERS = ("gateway", "ingest", "preprocessor", "trainer", "models", "inference", "operator")
PASSWORDS = {f"NATS_{user.upper()}": f'"{PASSWORD}"' for user in USERS}  # as the pod's variables are: with the marks

# As the pods have them, for every server that is started from here.
os.environ.update(PASSWORDS)


def written(folder: Path, files: dict[str, str], start: str) -> Path:
    """The configuration's files in a folder; where it starts."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    return folder / start


class Cluster:
    """Three servers that know each other by certificates."""

    def __init__(self, folder: Path, files: dict[str, str]) -> None:
        self._folder = folder
        self._files = files
        self._client = [free_port() for _ in range(3)]
        self._route = [free_port() for _ in range(3)]
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.authority = folder / "tls" / "ca.crt"

    def address(self, number: int) -> str:
        return f"tls://127.0.0.1:{self._client[number]}"

    def __enter__(self) -> Cluster:
        make_certificates(self._folder / "tls")
        for number in range(3):
            self._start(number)
        wait_until(lambda: all(process.poll() is None for process in self._processes.values()))
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._processes):
            self.kill(name)

    def kill(self, name: str) -> None:
        process = self._processes.pop(name)
        process.kill()
        process.wait(PATIENCE)

    def _start(self, number: int) -> None:
        name = f"nats-{number}"
        folder = self._folder / name
        replaced = {
            "0.0.0.0:4222": f"127.0.0.1:{self._client[number]}",
            "0.0.0.0:8222": f"127.0.0.1:{free_port()}",
            "0.0.0.0:6222": f"127.0.0.1:{self._route[number]}",
            '"/store"': f'"{folder / "store"}"',
            "/tmp/nats.pid": str(folder / "nats.pid"),  # what the configuration says
            "/etc/nats-tls": str(self._folder / "tls"),
            **{f"nats-{other}.nats-headless:6222": f"127.0.0.1:{self._route[other]}" for other in range(3)},
        }
        files = dict(self._files)
        for old, new in replaced.items():
            assert any(old in content for content in files.values()), f"the configuration does not name {old}"
            files = {file: content.replace(old, new) for file, content in files.items()}
        start = written(folder, files, "nats.conf")
        with (folder / "log").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                [shutil.which("nats-server") or "/usr/sbin/nats-server", "-c", str(start)],
                env=os.environ | {"POD_NAME": name},
                stdout=log,
                stderr=log,
            )


def make_certificates(folder: Path) -> None:
    """What the certificate manager makes: `ca.crt`, `tls.crt` and `tls.key`, for the addresses of this machine."""
    folder.mkdir(parents=True)
    key, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "voicewright")])
    now = datetime.now(UTC)

    def begun(name: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(authority)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(days=1))
        )

    root = (
        begun(authority, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    leaf = (
        begun(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "nats")]), own.public_key())
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.crt").write_bytes(root.public_bytes(serialization.Encoding.PEM))
    (folder / "tls.crt").write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    (folder / "tls.key").write_bytes(
        own.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
