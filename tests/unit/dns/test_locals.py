from zproxy.dns.locals import BELIEVED_S, REMEMBERED, Locals
from zproxy.net.poller import Poller


def test_the_kernel_is_asked_once_in_a_while() -> None:
    asked: list[str] = []
    own = {"10.0.0.1"}

    def is_own(ip: str) -> bool:
        asked.append(ip)
        return ip in own

    poller = Poller(lambda *_: None)
    known = Locals(is_own, poller)
    assert [known.has(ip) for ip in ("10.0.0.1", "10.0.0.2", "10.0.0.1", "10.0.0.2")] == [
        True,
        False,
        True,
        False,
    ]
    assert asked == ["10.0.0.1", "10.0.0.2"]
    own.clear()
    poller.now += BELIEVED_S
    assert not known.has("10.0.0.1")
    poller.close()


def test_strangers_take_no_room_without_bound() -> None:
    poller = Poller(lambda *_: None)
    known = Locals(lambda ip: False, poller)
    for number in range(3 * REMEMBERED):
        known.has(str(number))
    assert len(known._known) <= REMEMBERED
    poller.close()
