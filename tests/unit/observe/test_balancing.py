"""What balancing counts, and where that is shown."""

from tests.support.plane import Lines
from zproxy.observe.connections import Connections
from zproxy.observe.metrics import families, render


def test_ejections_and_retries_are_metrics_once_there_are_any() -> None:
    connections = Connections(Lines(), 4, 4)
    assert "zproxy_connect_retries" not in render(families(connections))
    counts = connections.totals.balancing
    counts.ejections, counts.retries = 2, 3
    text = render(families(connections))
    assert "zproxy_endpoint_ejections_total 2.0" in text
    assert "zproxy_connect_retries_total 3.0" in text
