"""One current certificate per identity: sharing, renewal, failure, forgetting."""

import contextlib
import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from tests.support.threads import at_once, let_others_run
from tests.support.wallclock import WallClock
from zproxy.errors import IdentityError
from zproxy.identity.certificate import Certificate, Root
from zproxy.identity.manager import FIRST_RETRY, LAST_RETRY, CertificateManager, CertificateSource
from zproxy.model.credentials import Credentials
from zproxy.model.identity import SpiffeId

CLIENT = SpiffeId("cluster.local", "demo", "client")
SERVER = SpiffeId("cluster.local", "demo", "server")
DAY = timedelta(hours=24)
SECOND = timedelta(seconds=1)


class FakeCa:
    """Issues at once, or fails while `failure` says why; remembers for whom it was asked."""

    def __init__(self, clock: WallClock) -> None:
        self._clock = clock
        self.asked: list[SpiffeId] = []
        self.failure = ""
        self.root = Root(0xABC, clock.now - DAY, clock.now + 1000 * DAY, b"root")

    def issue(self, identity: SpiffeId, ttl: timedelta) -> Certificate:
        self.asked.append(identity)
        if self.failure:
            raise IdentityError(self.failure)
        credentials = Credentials(b"chain", b"SECRET", b"roots")
        return Certificate(identity, credentials, len(self.asked), self._clock.now, self._clock.now + ttl)


@pytest.fixture
def clock() -> WallClock:
    return WallClock()


@pytest.fixture
def ca(clock: WallClock) -> FakeCa:
    return FakeCa(clock)


@pytest.fixture
def manager(ca: FakeCa, clock: WallClock) -> CertificateManager:
    return CertificateManager(ca, clock)


def test_nothing_is_issued_before_it_is_asked_for(manager: CertificateManager, ca: FakeCa) -> None:
    source = manager.source(CLIENT)
    assert ca.asked == []
    assert source.current().identity == CLIENT
    assert ca.asked == [CLIENT]


def test_pods_of_one_identity_share_one_certificate(manager: CertificateManager, ca: FakeCa) -> None:
    sources = [manager.source(CLIENT) for _ in range(100)]
    assert len({id(source.current()) for source in sources}) == 1
    assert ca.asked == [CLIENT]


def test_two_identities_have_two_certificates(manager: CertificateManager) -> None:
    assert manager.source(CLIENT).current().serial != manager.source(SERVER).current().serial


def test_a_source_has_no_way_to_another_identity(manager: CertificateManager) -> None:
    public = [name for name in dir(CertificateSource) if not name.startswith("_")]
    assert public == ["close", "current"]
    assert not hasattr(manager.source(CLIENT), "__dict__")


def test_renewal_begins_exactly_at_half_life(
    manager: CertificateManager, ca: FakeCa, clock: WallClock
) -> None:
    source = manager.source(CLIENT)
    first = source.current()
    clock.advance(DAY / 2 - SECOND)
    assert source.current() is first
    clock.advance(SECOND)
    second = source.current()
    assert second is not first
    assert second.not_after == clock.now + DAY
    assert source.current() is second
    assert len(ca.asked) == 2


def test_all_sources_see_the_renewed_certificate(manager: CertificateManager, clock: WallClock) -> None:
    one, two = manager.source(CLIENT), manager.source(CLIENT)
    one.current()
    clock.advance(DAY / 2)
    assert one.current() is two.current()


def test_the_old_certificate_is_served_while_renewal_fails(
    manager: CertificateManager, ca: FakeCa, clock: WallClock
) -> None:
    source = manager.source(CLIENT)
    first = source.current()
    ca.failure = "the CA is away"
    clock.advance(DAY / 2)
    assert source.current() is first
    clock.advance(DAY / 2 - SECOND)
    assert source.current() is first
    clock.advance(SECOND)
    with pytest.raises(IdentityError, match=r"spiffe://\S+/client has no valid certificate: the CA is away"):
        source.current()


def test_a_failing_ca_is_asked_less_and_less_often(
    manager: CertificateManager, ca: FakeCa, clock: WallClock
) -> None:
    source = manager.source(CLIENT)
    ca.failure = "the CA is away"
    waits: list[int] = []
    since = 0
    for second in range(1000):
        with pytest.raises(IdentityError):
            source.current()
        if len(ca.asked) > len(waits):
            waits.append(second - since)
            since = second
        clock.advance(SECOND)
    assert waits == [0, 1, 2, 4, 8, 16, 32, 64, 128, 150, 150, 150, 150]


def test_success_resets_the_back_off(manager: CertificateManager, ca: FakeCa, clock: WallClock) -> None:
    source = manager.source(CLIENT)
    ca.failure = "the CA is away"
    for _ in range(5):
        with pytest.raises(IdentityError):
            source.current()
        clock.advance(LAST_RETRY)
    ca.failure = ""
    source.current()
    ca.failure = "the CA is away again"
    clock.advance(DAY / 2)
    source.current()
    asked = len(ca.asked)
    clock.advance(FIRST_RETRY)
    source.current()
    assert len(ca.asked) == asked + 1


def test_identities_fail_apart(manager: CertificateManager, ca: FakeCa) -> None:
    ca.failure = "the CA is away"
    with pytest.raises(IdentityError):
        manager.source(CLIENT).current()
    ca.failure = ""
    assert manager.source(SERVER).current().identity == SERVER


def test_a_failure_is_logged_once_per_attempt_and_without_secrets(
    manager: CertificateManager, ca: FakeCa, clock: WallClock, caplog: pytest.LogCaptureFixture
) -> None:
    source = manager.source(CLIENT)
    source.current()
    ca.failure = "the CA is away"
    clock.advance(DAY / 2)
    with caplog.at_level(logging.DEBUG):
        source.current()
        source.current()
    assert [record.message for record in caplog.records] == [
        "no new certificate for spiffe://cluster.local/ns/demo/sa/client, next attempt in 1 s: the CA is away"
    ]
    assert "SECRET" not in caplog.text


@pytest.mark.parametrize("jump", [-1000 * DAY, 1000 * DAY])
def test_a_clock_that_jumps_leads_to_a_new_certificate(
    manager: CertificateManager, clock: WallClock, jump: timedelta
) -> None:
    source = manager.source(CLIENT)
    first = source.current()
    clock.advance(jump)
    second = source.current()
    assert second is not first
    assert second.not_before <= clock.now < second.not_after


def test_a_clock_that_is_set_back_does_not_prolong_the_back_off(
    manager: CertificateManager, ca: FakeCa, clock: WallClock
) -> None:
    source = manager.source(CLIENT)
    ca.failure = "the CA is away"
    with pytest.raises(IdentityError):
        source.current()
    clock.advance(-DAY)
    ca.failure = ""
    assert source.current().identity == CLIENT


def test_a_short_lived_certificate_is_not_renewed_at_every_use(ca: FakeCa, clock: WallClock) -> None:
    source = CertificateManager(ca, clock, ttl=2 * SECOND).source(CLIENT)
    assert source.current() is source.current()


def test_an_identity_is_forgotten_with_its_last_source(manager: CertificateManager, ca: FakeCa) -> None:
    one, two = manager.source(CLIENT), manager.source(CLIENT)
    one.current()
    one.close()
    one.close()
    assert two.current().identity == CLIENT
    assert len(manager.certificates()) == 2
    two.close()
    assert manager.certificates() == []
    assert manager.source(CLIENT).current().serial == 2
    assert len(ca.asked) == 2


def test_a_closed_source_gives_nothing(manager: CertificateManager) -> None:
    source = manager.source(CLIENT)
    other = manager.source(CLIENT)
    source.current()
    source.close()
    with pytest.raises(IdentityError, match="closed with its pod"):
        source.current()
    assert other.current().identity == CLIENT


def test_idle_identities_are_renewed_too(manager: CertificateManager, ca: FakeCa, clock: WallClock) -> None:
    sources = [manager.source(identity) for identity in (CLIENT, SERVER)]
    manager.renew_due()
    assert ca.asked == [CLIENT, SERVER]
    clock.advance(DAY / 2)
    manager.renew_due()
    assert len(ca.asked) == 4
    for source in sources:
        source.close()
    manager.renew_due()
    assert len(ca.asked) == 4


def test_renewing_goes_on_past_a_failure(manager: CertificateManager, ca: FakeCa) -> None:
    sources = [manager.source(CLIENT), manager.source(SERVER)]
    ca.failure = "the CA is away"
    manager.renew_due()
    assert ca.asked == [CLIENT, SERVER]
    assert len(sources) == 2


def test_certificates_are_listed_leaf_and_root(
    manager: CertificateManager, ca: FakeCa, clock: WallClock
) -> None:
    for identity in (SERVER, CLIENT):
        manager.source(identity).current()
    rows = manager.certificates()
    assert [(row.identity, row.type) for row in rows] == [
        (str(CLIENT), "Leaf"),
        (str(CLIENT), "Root"),
        (str(SERVER), "Leaf"),
        (str(SERVER), "Root"),
    ]
    assert rows[0][2:] == ("Available", True, "2", clock.now, clock.now + DAY)
    assert rows[1][2:] == ("Available", True, "abc", ca.root.not_before, ca.root.not_after)
    assert "SECRET" not in repr(rows)


def test_the_list_says_what_is_not_there_and_why(
    manager: CertificateManager, ca: FakeCa, clock: WallClock
) -> None:
    source = manager.source(CLIENT)
    assert manager.certificates()[0][2:] == ("Initializing", False, "", None, None)
    ca.failure = "the CA is away"
    with pytest.raises(IdentityError):
        source.current()
    assert manager.certificates()[0].status == "Unavailable: the CA is away"
    ca.failure = ""
    clock.advance(SECOND)
    source.current()
    assert manager.certificates()[0].status == "Available"
    clock.advance(DAY)
    assert manager.certificates()[0][2:4] == ("Unavailable: expired", False)


class YieldingCa(FakeCa):
    """Lets other threads run while it issues, as one that signs or asks a server does."""

    def issue(self, identity: SpiffeId, ttl: timedelta) -> Certificate:
        let_others_run()
        return super().issue(identity, ttl)


class MeetingTable(dict[SpiffeId, Any]):
    """Keeps a thread between a look and what follows from it until another has looked, if one can."""

    meeting = threading.Barrier(2)

    def get(self, key: SpiffeId, default: Any = None) -> Any:
        found = super().get(key, default)
        with contextlib.suppress(threading.BrokenBarrierError):
            self.meeting.wait(0.05)
        return found


def test_pods_that_ask_at_once_from_their_threads_get_one_certificate(clock: WallClock) -> None:
    ca = YieldingCa(clock)
    manager = CertificateManager(ca, clock)
    sources = [manager.source(CLIENT) for _ in range(8)]
    for age in (timedelta(0), DAY / 2):
        clock.advance(age)
        ca.asked.clear()
        got = at_once([source.current for source in sources])
        assert len({certificate.serial for certificate in got}) == 1
        assert ca.asked == [CLIENT]


def test_two_pods_of_an_identity_that_come_at_once_share_it(manager: CertificateManager) -> None:
    manager._holdings = MeetingTable()
    one, two = at_once([partial(manager.source, CLIENT)] * 2)
    assert one.current() is two.current()
    one.close()
    assert len(manager.certificates()) == 2, "a leaf and its root"
    two.close()
    assert manager.certificates() == []


def test_identities_come_and_go_on_several_threads_while_all_are_renewed(
    manager: CertificateManager,
) -> None:
    def come_and_go(identity: SpiffeId) -> None:
        for _ in range(100):
            manager.source(identity).close()

    def renew() -> None:
        for _ in range(100):
            manager.renew_due()
            manager.certificates()

    identities = [SpiffeId("cluster.local", "demo", f"sa-{number}") for number in (0, 0, 1, 1, 2)]
    calls: list[Callable[[], None]] = [partial(come_and_go, identity) for identity in identities]
    at_once([*calls, renew])
    assert manager.certificates() == []
