"""`zproxy certs`."""

import re
from collections.abc import Callable

from click.testing import Result

from tests.cli.conftest import StartDaemons

ROW = {
    "identity": "spiffe://cluster.local/ns/demo/sa/client",
    "type": "Leaf",
    "status": "Available",
    "valid": True,
    "serial": "0a1b",
    "not_after": "2026-01-02T00:00:00Z",
    "not_before": "2026-01-01T00:00:00Z",
}


def test_certificates_have_istioctls_columns(start: StartDaemons, zp: Callable[..., Result]) -> None:
    start(node_a={"certs": [ROW]})
    header, row = zp("certs").stdout.splitlines()
    assert re.split(r" {3,}", header) == [
        *("CERTIFICATE NAME", "TYPE", "STATUS", "VALID CERT", "SERIAL NUMBER", "NOT AFTER", "NOT BEFORE"),
    ]
    assert row.split() == [
        ROW["identity"],
        "Leaf",
        "Available",
        "yes",
        "0a1b",
        ROW["not_after"],
        ROW["not_before"],
    ]


def test_no_certificates_is_a_sentence(start: StartDaemons, zp: Callable[..., Result]) -> None:
    start(node_a={"certs": []})
    assert zp("certs").stderr == "No certificates: no pod is enrolled.\n"
