"""A certificate for 127.0.0.1 and localhost, made with openssl; clients trust it by naming it as their CA."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.servers.process import require

_CONFIG = """
[req]
distinguished_name = name
x509_extensions = extensions
prompt = no
[name]
CN = localhost
[extensions]
subjectAltName = DNS:localhost, IP:127.0.0.1
basicConstraints = critical, CA:TRUE
keyUsage = critical, digitalSignature, keyCertSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid:always
"""


@dataclass(frozen=True, slots=True)
class Certificate:
    """Paths of PEM files. ``certificate`` is also its own CA."""

    certificate: Path
    key: Path


def make_certificate(directory: Path) -> Certificate:
    """Make a key and a self-signed certificate in ``directory``, valid for two days."""
    directory.mkdir(parents=True, exist_ok=True)
    made = Certificate(certificate=directory / "certificate.pem", key=directory / "key.pem")
    config = directory / "openssl.cnf"
    config.write_text(_CONFIG)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(made.key)]
    subprocess.run(
        [require("openssl"), "req", "-x509", "-days", "2", "-config", config, *key, "-out", made.certificate],
        check=True,
        capture_output=True,
    )
    return made
