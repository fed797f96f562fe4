"""A pod's DNS that must come out of each test as it went in, whatever the test does to it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import dns.message
import dns.rcode
import dns.rdatatype

from tests.support import gauge
from tests.support.captured import FIRST, WEB4, Captured, captured, framed, question, unframed
from tests.support.nodes import wait_for

NAME: Final = "www.example.com"
"""Of the resolvers."""
IPS: Final = ["203.0.113.80", "203.0.113.81"]
FULL: Final = "web.demo.svc.cluster.local"
"""Of the mesh."""
SILENT: Final = "silent.example.com"
AT_ONCE_S: Final = 1.0
LATE_S: Final = 2.0
"""Deadlines are looked at once a second."""
MEMORY_KB: Final = 8 << 10
"""By how much a file of tests may make the daemon grow."""
SO_RCVBUFFORCE: Final = 33


@contextmanager
def intact(directory: Path) -> Iterator[Captured]:
    """Make the pod for a file of tests; at the end the daemon has not grown."""
    with captured(directory) as made:
        assert made.dig(NAME).data("A") == IPS
        made.ledger()
        before = gauge.held(made.pid)
        yield made
        after = gauge.held(made.pid)
        grown = after.anonymous_kb - before.anonymous_kb
        assert grown < MEMORY_KB, f"{grown} kB more"


@contextmanager
def healed(world: Captured) -> Iterator[Captured]:
    """Let one test have it; afterwards resolvers are honest, nothing is held any more, and all works."""
    before = descriptors(world)
    yield world
    for each in world.resolvers.values():
        each.behaviours.clear()

    def is_quiet() -> bool:
        for each in world.resolvers.values():
            each.give_up()
        return descriptors(world) <= before

    wait_for(is_quiet, "all descriptors are closed")
    for name, expected in ((NAME, IPS), (FULL, [WEB4])):
        found = addresses(world.ask(question(name)))
        assert found == expected, found


def descriptors(world: Captured) -> int:
    """Return how many the daemon has."""
    return len(os.listdir(f"/proc/{world.pid}/fd"))


def addresses(wire: bytes) -> list[str]:
    """Return the addresses in an answer, sorted."""
    answer = dns.message.from_wire(wire).answer
    return sorted(each.address for rrset in answer for each in rrset if rrset.rdtype == dns.rdatatype.A)


def code(wire: bytes) -> str:
    """Return the response code of an answer, in words."""
    return dns.rcode.to_text(dns.message.from_wire(wire).rcode())


def over_tcp(world: Captured, wire: bytes, to: str = FIRST) -> bytes:
    """Ask over a connection of its own; return the answer."""
    with world.dial(to) as app:
        app.sendall(framed(wire))
        (answer,) = unframed(app, 1)
        return answer
