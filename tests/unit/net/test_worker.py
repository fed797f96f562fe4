"""A worker's sweep."""

from zproxy.config import Deadlines, Limits
from zproxy.net.deadline import Deadline
from zproxy.net.worker import Worker


class Clocked:
    """Hears deadlines and ticks."""

    def __init__(self) -> None:
        self.deadlines: list[str] = []
        self.ticks: list[float] = []

    def on_deadline(self, deadline: Deadline) -> None:
        self.deadlines.append(deadline.what)

    def on_tick(self, now: float) -> None:
        self.ticks.append(now)


def test_a_sweep_expires_waits_and_ticks() -> None:
    worker = Worker(Deadlines(connect_s=5, handshake_s=50), Limits(), lambda item, error: None)
    worker.poller.clock = lambda: 100.0  # a clock that stands
    item = Clocked()
    worker.ticking.add(item)
    worker.connecting.start(item, now=94)
    worker.handshaking.start(item, now=94)
    worker.sweep()
    assert item.deadlines == ["TCP connect"]
    assert item.ticks == [100.0]
    worker.close()
