"""What lists and events do to what is known."""

import json
from typing import Any

import pytest

from tests.support.kubeobjects import kube_namespace, kube_pod
from zproxy.kube.ledger import Expired, Ledger, NoList, WatchFailed, key_of
from zproxy.kube.objects import PODS, Pod


def line(kind: str, item: dict[str, Any], version: int = 0) -> bytes:
    if version:
        item["metadata"]["resourceVersion"] = str(version)
    return json.dumps({"type": kind, "object": item}).encode()


def page(*items: dict[str, Any], version: int = 5, more: str = "") -> bytes:
    metadata = {"resourceVersion": str(version)} | ({"continue": more} if more else {})
    return json.dumps({"metadata": metadata, "items": items}).encode()


@pytest.fixture
def ledger() -> Ledger[Pod]:
    made = Ledger(PODS)
    listed = made.read_page(page(kube_pod("demo/a", "10.0.0.1"), kube_pod("demo/b", "10.0.0.2")))
    assert made.replace(listed.objects, listed.version)
    return made


def test_a_list_replaces_what_was_known(ledger: Ledger[Pod]) -> None:
    listed = ledger.read_page(page(kube_pod("demo/b", "10.0.0.2"), kube_pod("demo/c", "10.0.0.3"), version=9))
    assert sorted(ledger.objects) == ["demo/a", "demo/b"], "reading a page changes nothing"
    assert ledger.replace(listed.objects, listed.version)
    assert sorted(ledger.objects) == ["demo/b", "demo/c"]
    assert ledger.version == "9"


def test_the_same_list_again_is_no_news(ledger: Ledger[Pod]) -> None:
    listed = ledger.read_page(page(kube_pod("demo/a", "10.0.0.1"), kube_pod("demo/b", "10.0.0.2"), version=9))
    assert not ledger.replace(listed.objects, listed.version)


def test_an_empty_list_is_news_when_it_is_the_first() -> None:
    ledger = Ledger(PODS)
    before = ledger.is_synced
    assert ledger.replace({}, "1")
    assert (before, ledger.is_synced) == (False, True)
    assert not ledger.replace({}, "2")


def test_a_page_tells_whether_there_are_more(ledger: Ledger[Pod]) -> None:
    assert ledger.read_page(page(more="token")).more == "token"
    assert ledger.read_page(page()).more == ""


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"metadata": 1}', b"\xff"])
def test_what_is_no_list_is_an_error(ledger: Ledger[Pod], body: bytes) -> None:
    with pytest.raises(NoList):
        ledger.read_page(body)


@pytest.mark.parametrize(
    ("kind", "item", "is_news", "names"),
    [
        ("ADDED", kube_pod("demo/c", "10.0.0.3"), True, ["demo/a", "demo/b", "demo/c"]),
        ("ADDED", kube_pod("demo/a", "10.0.0.1"), False, ["demo/a", "demo/b"]),
        ("MODIFIED", kube_pod("demo/a", "10.0.0.9"), True, ["demo/a", "demo/b"]),
        (
            "MODIFIED",
            kube_pod("demo/a", "10.0.0.1", annotations={"unused": "x"}),
            False,
            ["demo/a", "demo/b"],
        ),
        ("DELETED", kube_pod("demo/a"), True, ["demo/b"]),
        ("DELETED", kube_pod("demo/x"), False, ["demo/a", "demo/b"]),
        ("BOOKMARK", {"metadata": {}}, False, ["demo/a", "demo/b"]),
    ],
)
def test_events(
    ledger: Ledger[Pod], kind: str, item: dict[str, Any], is_news: bool, names: list[str]
) -> None:
    assert ledger.apply(line(kind, item, 77)) == (is_news, "")
    assert sorted(ledger.objects) == names
    assert ledger.version == "77", "also what changes nothing moves the version on"


def test_gone_is_told_apart_from_other_errors(ledger: Ledger[Pod]) -> None:
    with pytest.raises(Expired, match="too old"):
        ledger.apply(line("ERROR", {"code": 410, "message": "too old"}))
    with pytest.raises(WatchFailed, match="etcd"):
        ledger.apply(line("ERROR", {"code": 500, "message": "etcd has no leader"}))
    with pytest.raises(WatchFailed):
        ledger.apply(b'{"type": "ERROR", "object": null}')
    assert ledger.version == "5"


@pytest.mark.parametrize(
    "text",
    [
        b"x",
        b"[]",
        b"{}",
        b'{"type": "ADDED"}',
        b'{"type": "ADDED", "object": 1}',
        b'{"type": "ODD", "object": {"metadata": {}}}',
    ],
)
def test_what_is_no_event_is_an_error(ledger: Ledger[Pod], text: bytes) -> None:
    with pytest.raises(WatchFailed):
        ledger.apply(text)


def test_an_object_that_cannot_be_read_is_as_if_it_were_not_there(ledger: Ledger[Pod]) -> None:
    is_news, fault = ledger.apply(line("MODIFIED", kube_pod("demo/a", "nonsense"), 6))
    assert is_news
    assert fault.startswith("demo/a: ValueError")
    assert list(ledger.objects) == ["demo/b"]
    listed = ledger.read_page(page({"metadata": {"name": "odd"}}, {}, kube_pod("demo/c")))
    assert [fault.partition(":")[0] for fault in listed.unreadable] == ["odd", "an object without a name"]
    assert list(listed.objects) == ["demo/c"]


def test_keys() -> None:
    assert key_of(kube_pod("demo/a")) == "demo/a"
    assert key_of(kube_namespace("demo")) == "demo"
