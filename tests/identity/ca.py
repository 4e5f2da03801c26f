"""A certificate authority for the tests, in memory."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.identity.issuer import NOW

CLIENT = (ExtendedKeyUsageOID.CLIENT_AUTH,)
SERVER = (ExtendedKeyUsageOID.SERVER_AUTH,)
MOMENT = datetime.fromtimestamp(NOW, UTC)


class Authority:
    """Issues certificates.

    Args:
        name: Common name.
        parent: Who certifies this one; itself where nobody does.
        begins: Of its validity.
    """

    def __init__(
        self, name: str, parent: Authority | None = None, begins: datetime = MOMENT - timedelta(hours=1)
    ) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = (parent or self).issue(name, key=self.key, ca=True, names=(), usage=(), begins=begins)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def bundle(self) -> bytes:
        """As a SPIFFE bundle."""
        der = base64.b64encode(self.certificate.public_bytes(Encoding.DER)).decode()
        return json.dumps({"keys": [{"use": "x509-svid", "kty": "EC", "x5c": [der]}]}).encode()

    def issue(
        self,
        name: str,
        *,
        names: Sequence[x509.GeneralName],
        key: ec.EllipticCurvePrivateKey | None = None,
        ca: bool = False,
        usage: Sequence[Any] = CLIENT,
        signs: bool | None = None,
        key_usage: bool | None = True,
        digital: bool = True,
        begins: datetime = MOMENT - timedelta(hours=1),
        lasts: timedelta = timedelta(days=1),
    ) -> x509.Certificate:
        """Issue a certificate.

        Args:
            name: Common name.
            names: Alternative names.
            key: Its key; a new one if there is none.
            ca: Whether it is that of an authority.
            usage: Extended key usage; empty for none.
            signs: Whether its key may sign certificates; as ``ca`` says unless told.
            key_usage: Whether the key usage is critical; ``None`` for no key usage.
            digital: Whether that says that it is for digital signatures.
            begins: Of its validity.
            lasts: The same.
        """
        key = key or ec.generate_private_key(ec.SECP256R1())
        signs = ca if signs is None else signs
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(begins + lasts)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        if key_usage is not None:
            usages = x509.KeyUsage(digital and not ca, False, False, False, not digital, signs, signs, False, False)
            builder = builder.add_extension(usages, critical=key_usage)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if usage:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        return builder.sign(self.key, hashes.SHA256())


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def uri(text: str) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(text)


def dns(text: str) -> x509.GeneralName:
    return x509.DNSName(text)
