from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.ca import CLIENT, SERVER, shared_ca
from zproxy.errors import TlsFailed
from zproxy.wire.certificates import pem_file, uri_names


def _der(*uris: str) -> bytes:
    chain = shared_ca().credentials(*uris).certificate_chain
    return x509.load_pem_x509_certificate(chain).public_bytes(Encoding.DER)


def test_a_lent_file_is_readable_and_then_gone() -> None:
    with pem_file(b"secret") as path:
        assert Path(path).read_bytes() == b"secret"
        assert Path(path).read_bytes() == b"secret", "each reader begins at the beginning"
    assert not Path(path).exists()


def test_uris_are_returned_in_order() -> None:
    assert uri_names(_der(SERVER, CLIENT)) == (SERVER, CLIENT)
    assert uri_names(_der()) == ()


def test_an_undecodable_certificate_fails_in_words() -> None:
    with pytest.raises(TlsFailed, match="cannot be decoded"):
        uri_names(_der(CLIENT)[:-1])
