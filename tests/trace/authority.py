"""A time-stamping authority on loopback, whose answers are made by ``openssl ts``, and certificates for it."""

import os
import re
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import (
    BasicConstraints,
    CertificateBuilder,
    ExtendedKeyUsage,
    Name,
    NameAttribute,
    ObjectIdentifier,
    random_serial_number,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.clients.debian import program

_CONFIGURATION = """
[tsa]
default_tsa = own
[own]
serial = {folder}/serial
crypto_device = builtin
signer_digest = sha256
default_policy = 1.3.6.1.4.1.57264.2
other_policies = 1.3.6.1.4.1.57264.3
digests = sha256
accuracy = secs:1, millisecs:500
ordering = no
tsa_name = no
ess_cert_id_chain = no
ess_cert_id_alg = sha256
"""
_PATIENCE_S = 30


def openssl(*arguments: str | Path, folder: Path) -> bytes:
    """Run the program; fails where it does."""
    found = program("openssl")
    done = subprocess.run(
        [str(found.path), *map(str, arguments)],
        cwd=folder,
        env={**os.environ, **found.environment, "OPENSSL_CONF": str(folder / "openssl.cnf")},
        capture_output=True,
        check=False,
        timeout=_PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


class Certificates:
    """A root, ``stamper`` that it vouches for, ``other`` (not for timestamps), ``past`` (no longer); ``stranger``, another root."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "openssl.cnf").write_text(_CONFIGURATION.format(folder=folder))
        (folder / "serial").write_text("01\n")
        self._now = datetime.now(UTC)
        self._root = self._made("root", None)
        self._made("stranger", None)
        self._made("stamper", ExtendedKeyUsageOID.TIME_STAMPING)
        self._made("other", ExtendedKeyUsageOID.CLIENT_AUTH)
        self._made("past", ExtendedKeyUsageOID.TIME_STAMPING, until=timedelta(days=-1))

    def _made(
        self, name: str, purpose: ObjectIdentifier | None, *, until: timedelta = timedelta(days=30)
    ) -> tuple[Name, EllipticCurvePrivateKey]:
        """A certificate and its key, in files; without a purpose a root."""
        key = generate_private_key(SECP256R1())
        subject = Name([NameAttribute(NameOID.COMMON_NAME, f"Test {name}")])
        issuer, signer = (subject, key) if purpose is None else self._root
        signs = purpose is None
        builder = (
            CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(random_serial_number())
            .not_valid_before(self._now - timedelta(days=60))
            .not_valid_after(self._now + until)
            .add_extension(BasicConstraints(ca=signs, path_length=None), critical=True)
        )
        if purpose is not None:
            builder = builder.add_extension(ExtendedKeyUsage([purpose]), critical=True)
        made = builder.sign(signer, SHA256())
        (self.folder / f"{name}.pem").write_bytes(made.public_bytes(Encoding.PEM))
        form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (self.folder / f"{name}.key").write_bytes(key.private_bytes(*form))
        return subject, key

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.pem"

    def pem(self, name: str) -> bytes:
        return self.path(name).read_bytes()

    def resign(self, token: bytes, signer: str, *, ago: timedelta = timedelta()) -> bytes:
        """What is in a token, signed by another certificate, and dated earlier."""
        (self.folder / "was.der").write_bytes(token)
        openssl(
            "cms", "-verify", "-noverify", "-inform", "DER", "-in", "was.der", "-out", "info.der", folder=self.folder
        )
        info = self.folder / "info.der"
        time = f"\x18\x0f{datetime.now(UTC) - ago:%Y%m%d%H%M%S}Z".encode()  # a GeneralizedTime
        info.write_bytes(re.sub(rb"\x18\x0f[0-9]{14}Z", time, info.read_bytes()))
        form = ("-binary", "-nodetach", "-outform", "DER", "-econtent_type", "1.2.840.113549.1.9.16.1.4")
        files = (
            "-in",
            "info.der",
            "-out",
            "is.der",
            "-signer",
            f"{signer}.pem",
            "-inkey",
            f"{signer}.key",
            "-md",
            "sha256",
        )
        openssl("cms", "-sign", *form, *files, folder=self.folder)
        return (self.folder / "is.der").read_bytes()


class Authority:
    """The authority at work. ``answer`` makes what it answers of a request; it can be put in the place of another."""

    def __init__(self, certificates: Certificates, folder: Path) -> None:
        self.certificates = certificates
        self.folder = folder
        self.asked: list[tuple[dict[str, str], bytes]] = []
        self.status = 200
        self.answer = self.stamp
        authority = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = self.rfile.read(int(self.headers["content-length"]))
                authority.asked.append(({name.lower(): value for name, value in self.headers.items()}, request))
                status = authority.status
                answer = authority.answer(request) if status == 200 else b""
                self.send_response(status)
                self.send_header("content-type", "application/timestamp-reply")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/tsr"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stamp(self, request: bytes) -> bytes:
        """What an honest authority answers."""
        query, answer = (self.folder / f"{threading.get_ident()}.{kind}" for kind in ("tsq", "tsr"))
        query.write_bytes(request)
        signer = ("-inkey", "stamper.key", "-signer", "stamper.pem", "-config", "openssl.cnf")
        openssl("ts", "-reply", "-queryfile", query, "-out", answer, *signer, folder=self.certificates.folder)
        return answer.read_bytes()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
