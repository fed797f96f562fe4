"""Pool keys: what may share a tunnel."""

import pytest

from zproxy.model.addr import Endpoint
from zproxy.model.conn import PoolKey, flag_of
from zproxy.model.identity import SpiffeId

CLIENT = SpiffeId("cluster.local", "demo", "client")
SERVER = SpiffeId("cluster.local", "demo", "server")
KEY = PoolKey(CLIENT, (str(SERVER),), "10.244.1.5", Endpoint("10.244.2.5", 15008))


@pytest.mark.parametrize(
    "other",
    [
        KEY._replace(src_identity=SERVER),
        KEY._replace(dst_identities=(str(CLIENT),)),
        KEY._replace(src_ip="10.244.1.6"),
        KEY._replace(dst=Endpoint("10.244.2.6", 15008)),
    ],
)
def test_whatever_differs_is_another_tunnel(other: PoolKey) -> None:
    assert len({KEY, other}) == 2


def test_equal_keys_share_a_tunnel() -> None:
    assert len({KEY, PoolKey(*KEY)}) == 1


@pytest.mark.parametrize(
    ("reason", "flag"),
    [
        ("", "-"),
        ("DENY", "DENY"),
        ("TLS_FAILURE", "TLS_FAILURE"),
        ("H2_HANDSHAKE_FAILURE", "H2_HANDSHAKE_FAILURE"),
        ("NETWORK_POLICY", "NETWORK_POLICY"),
        ("IDENTITY", "IDENTITY_ERROR"),
        ("CERT_REVOKED", "CERT_REVOKED"),
        *(
            (reason, "CONNECT")
            for reason in ("CONNECT", "PEER_DENY", "RESET", "TIMEOUT", "TUNNEL_CLOSED", "LIMIT")
        ),
    ],
)
def test_every_reason_has_a_flag_of_istios(reason: str, flag: str) -> None:
    assert flag_of(reason).value == flag
