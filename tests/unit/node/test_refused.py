"""A refused pod is shown like any other, with why."""

from zproxy.node.refused import Refused


def test_its_row_has_the_keys_that_people_look_for() -> None:
    row = Refused("demo/client", "/run/netns/c", 7, "port 15006 is in use").row("node-a")
    assert (row["pod"], row["namespace"], row["name"], row["node"]) == (
        "demo/client",
        "demo",
        "client",
        "node-a",
    )
    assert (row["state"], row["reason"]) == ("refused", "port 15006 is in use")
    assert row["netns"] == {"path": "/run/netns/c", "cookie": 7}
