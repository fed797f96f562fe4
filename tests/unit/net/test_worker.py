"""A sweep: waits expire, clocks tick, and what that made dirty is flushed."""

from collections.abc import Iterator

import pytest

from tests.support.bench import START, Bench
from zproxy.config import Deadlines
from zproxy.net.deadline import Deadline


class Client:
    """Waits, ticks and flushes, and notes all of it."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.notes: list[str] = []

    def on_deadline(self, deadline: Deadline) -> None:
        self.notes.append(str(deadline))
        self._bench.worker.poller.soon(self)

    def on_tick(self, now: float) -> None:
        self.notes.append(f"tick {now:g}")
        self._bench.worker.ticking.discard(self)

    def flush(self) -> None:
        self.notes.append("flush")

    def abort(self, error: str) -> None:
        self.notes.append(error)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench(deadlines=Deadlines(connect_s=1, handshake_s=2, reply_s=3, half_close_s=4, settings_ack_s=5))
    yield made
    made.close()


@pytest.mark.parametrize(
    ("name", "seconds", "text"),
    [
        ("connecting", 1, "TCP connect took longer than 1 s"),
        ("handshaking", 2, "TLS and HTTP/2 handshake took longer than 2 s"),
        ("agreeing", 5, "SETTINGS acknowledgement took longer than 5 s"),
        ("answering", 3, "CONNECT reply took longer than 3 s"),
        ("half_closed", 4, "the other direction after a half-close took longer than 4 s"),
    ],
)
def test_each_wait_has_its_own_length(bench: Bench, name: str, seconds: float, text: str) -> None:
    client = Client(bench)
    deadline: Deadline = getattr(bench.worker, name)
    deadline.start(client, bench.now)
    bench.advance(seconds - 0.5)
    assert client.notes == []
    bench.advance(0.5)
    assert client.notes == [text, "flush"]


def test_a_sweep_ticks_what_asked_for_it_even_when_it_leaves_meanwhile(bench: Bench) -> None:
    clients = [Client(bench), Client(bench)]
    bench.worker.ticking.update(clients)
    bench.advance(1.0)
    bench.advance(1.0)
    assert [client.notes for client in clients] == [[f"tick {START + 1:g}"]] * 2


def test_a_sweep_sets_the_time_of_the_worker(bench: Bench) -> None:
    bench.advance(7.0)
    assert bench.worker.poller.now == START + 7


class Faulty(Client):
    """Fails whenever the clock calls."""

    def on_deadline(self, deadline: Deadline) -> None:
        raise ValueError("deadline")

    def on_tick(self, now: float) -> None:
        self._bench.worker.ticking.discard(self)
        raise ValueError("tick")


def test_a_fault_in_one_wait_or_tick_leaves_the_others_theirs(bench: Bench) -> None:
    crashed: list[tuple[object, str]] = []
    bench.worker._on_crash = lambda item, error: crashed.append((item, str(error)))
    sound, faulty = Client(bench), Faulty(bench)
    for client in (faulty, sound):
        bench.worker.connecting.start(client, bench.now)
    bench.worker.ticking.update((faulty, sound))
    bench.advance(1.0)
    assert crashed == [(faulty, "deadline"), (faulty, "tick")]
    assert sound.notes == ["TCP connect took longer than 1 s", f"tick {START + 1:g}", "flush"]


def test_idleness_is_watched_only_when_it_has_a_limit(bench: Bench) -> None:
    bench.worker.watch_idle(Client(bench))
    assert len(bench.worker.idle) == 0
