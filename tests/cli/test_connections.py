"""`zproxy connections`."""

import json
from collections.abc import Callable

from click.testing import Result

from tests.cli.conftest import StartDaemons

ROW = {
    "id": 3,
    "pod": "demo/client",
    "direction": "outbound",
    "state": "failed",
    "src": "10.244.1.5:40000",
    "dst": "10.244.2.5:8080",
    "hbone_addr": "10.244.2.5:8080",
    "src_identity": "spiffe://cluster.local/ns/demo/sa/client",
    "dst_identity": None,
    "bytes_sent": 0,
    "bytes_recv": 0,
    "duration_ms": 12,
    "tunnel": None,
    "reason": "TLS_FAILURE",
    "error": "peer certificate has expired",
}


def test_a_failed_connection_says_why(start: StartDaemons, zp: Callable[..., Result]) -> None:
    start(node_a={"connections": [ROW]})
    header, row = zp("connections").stdout.splitlines()
    assert header.split()[-2:] == ["REASON", "ERROR"]
    assert row.endswith("TLS_FAILURE   peer certificate has expired")


def test_wide_shows_tunnel_and_identities(start: StartDaemons, zp: Callable[..., Result]) -> None:
    start(node_a={"connections": [ROW]})
    header, row = zp("connections", "-o", "wide").stdout.splitlines()
    assert "TUNNEL   SRC IDENTITY" in header
    assert ROW["src_identity"] in row.split()


def test_json_keeps_every_key(start: StartDaemons, zp: Callable[..., Result]) -> None:
    start(node_a={"connections": [ROW]})
    assert json.loads(zp("connections", "-o", "json").stdout) == [ROW]
