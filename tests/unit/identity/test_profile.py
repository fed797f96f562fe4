"""What certificates look like, field by field."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from zproxy.identity.profile import LeafProfile, root_certificate
from zproxy.model.identity import SpiffeId

BEGIN = datetime(2030, 1, 1, tzinfo=UTC)
END = BEGIN + timedelta(days=1)
CLIENT = SpiffeId("cluster.local", "demo", "client")


@pytest.fixture(scope="module")
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="module")
def root(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    return root_certificate(key, BEGIN, END)


@pytest.fixture(scope="module")
def leaf(root: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    return LeafProfile(root, key).sign(
        ec.generate_private_key(ec.SECP256R1()).public_key(), CLIENT, BEGIN, END
    )


def test_a_leaf_names_exactly_one_identity_critically(leaf: x509.Certificate) -> None:
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.critical
    assert list(names.value) == [x509.UniformResourceIdentifier("spiffe://cluster.local/ns/demo/sa/client")]
    assert leaf.subject == x509.Name([])


def test_a_leaf_may_only_sign_handshakes_as_client_and_server(leaf: x509.Certificate) -> None:
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    forbidden = (usage.value.key_cert_sign, usage.value.crl_sign, usage.value.key_agreement)
    assert forbidden == (False, False, False)
    purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(purposes) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    constraints = leaf.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert not constraints.value.ca


@pytest.mark.parametrize("name", ["leaf", "root"])
def test_keys_and_signatures_are_p256_and_sha256(name: str, request: pytest.FixtureRequest) -> None:
    certificate = request.getfixturevalue(name)
    public_key = certificate.public_key()
    assert isinstance(public_key, ec.EllipticCurvePublicKey)
    assert isinstance(public_key.curve, ec.SECP256R1)
    assert isinstance(certificate.signature_hash_algorithm, hashes.SHA256)
    assert certificate.version is x509.Version.v3


def test_a_leaf_is_issued_by_its_root_directly(leaf: x509.Certificate, root: x509.Certificate) -> None:
    leaf.verify_directly_issued_by(root)
    authority = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    subject = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert authority.key_identifier == subject.digest


def test_a_root_may_issue_leaves_but_no_other_ca(root: x509.Certificate) -> None:
    constraints = root.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 0)
    usage = root.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.key_cert_sign
    assert not usage.digital_signature
    root.verify_directly_issued_by(root)


def test_two_roots_have_two_names(root: x509.Certificate) -> None:
    other = root_certificate(ec.generate_private_key(ec.SECP256R1()), BEGIN, END)
    assert other.subject != root.subject


def test_dates_are_as_given(leaf: x509.Certificate, root: x509.Certificate) -> None:
    for certificate in (leaf, root):
        assert certificate.not_valid_before_utc == BEGIN
        assert certificate.not_valid_after_utc == END
