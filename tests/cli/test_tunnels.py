"""`zproxy tunnels`."""

from collections.abc import Callable

from click.testing import Result

from tests.cli.conftest import StartDaemons

ROW = {
    "id": 1,
    "pod": "demo/client",
    "role": "client",
    "state": "open",
    "local": "10.244.1.5:41000",
    "remote": "10.244.2.5:15008",
    "src_identity": "spiffe://cluster.local/ns/demo/sa/client",
    "dst_identity": "spiffe://cluster.local/ns/demo/sa/server",
    "streams": 1,
    "streams_total": 5,
    "bytes_sent": 400,
    "bytes_recv": 1000,
    "age_s": 1.25,
    "tls": "TLSv1.3",
    "alpn": "h2",
    "worker": 3,
}


def test_a_tunnel_shows_its_ends_and_streams(start: StartDaemons, zp: Callable[..., Result]) -> None:
    start(node_a={"tunnels": [ROW]})
    _, row = zp("tunnels").stdout.splitlines()
    ends = ["10.244.1.5:41000", "10.244.2.5:15008"]
    assert row.split() == ["1", "demo/client", "client", "open", *ends, "1", "5", "400", "1000", "1.2"]


def test_wide_shows_tls_and_identities(start: StartDaemons, zp: Callable[..., Result]) -> None:
    start(node_a={"tunnels": [ROW]})
    _, row = zp("tunnels", "-o", "wide").stdout.splitlines()
    assert row.split()[-5:] == ["TLSv1.3", "h2", "3", ROW["src_identity"], ROW["dst_identity"]]
