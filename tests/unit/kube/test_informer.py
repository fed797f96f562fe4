"""An informer against a server that speaks the real protocol: in the end it knows what is."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.apiserver import ApiServer, Fault, api_server
from tests.support.informed import Informed, informed, until
from tests.support.kubeobjects import kube_namespace, kube_pod
from zproxy.kube import api, informer
from zproxy.kube.objects import NAMESPACES


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with api_server() as made:
        for number in range(5):
            made.put("pods", kube_pod(f"demo/pod-{number}", f"10.0.0.{number}"))
        yield made


FIVE = {f"demo/pod-{number}" for number in range(5)}


async def followed(it: Informed) -> None:
    """Whatever came before: a new pod, a changed one and one that is gone are known in the end."""
    it.server.put("pods", kube_pod("demo/late", "10.0.1.1"))
    it.server.put("pods", kube_pod("demo/pod-1", "10.0.0.1", ready=False))
    it.server.delete("pods", "demo/pod-0")
    await until(lambda: it.names == (FIVE | {"demo/late"}) - {"demo/pod-0"})
    await until(lambda: not it.informer.ledger.objects["demo/pod-1"].is_ready)


def test_a_list_and_then_every_change(server: ApiServer, tmp_path: Path) -> None:
    async def scenario(it: Informed) -> None:
        await until(lambda: it.names == FIVE)
        await followed(it)
        assert server.count("pods", watches=False) == 1

    informed(server, tmp_path, scenario)


@pytest.mark.parametrize("chunk", [0, 1, 7, 4096])
def test_chunks_may_begin_and_end_anywhere(server: ApiServer, tmp_path: Path, chunk: int) -> None:
    server.chunk = chunk
    informed(server, tmp_path, followed)


@pytest.mark.parametrize("page", [1, 2, 3, 5, 100])
def test_a_list_comes_in_pages(
    server: ApiServer, tmp_path: Path, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(informer, "PAGE", page)

    async def scenario(it: Informed) -> None:
        await until(lambda: it.names == FIVE)
        assert it.changes == 1, "a list is one change, and never seen in part"
        assert server.count("pods", watches=False) == -(-5 // page)

    informed(server, tmp_path, scenario)


def test_pages_that_the_server_has_forgotten_are_listed_anew(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(informer, "PAGE", 2)
    server.break_next("list", Fault.NONE, Fault.GONE, Fault.NONE, Fault.NONE, Fault.GONE)
    informed(server, tmp_path, followed)


@pytest.mark.parametrize("fault", [Fault.GONE, Fault.GONE_EVENT], ids=["status", "event"])
def test_gone_is_answered_by_a_list_which_finds_what_was_missed(
    server: ApiServer, tmp_path: Path, fault: Fault
) -> None:
    server.watch_s = 0.2

    async def scenario(it: Informed) -> None:
        await until(lambda: server.watching)
        server.break_next("watch", fault)
        await followed(it)
        await until(lambda: server.count("pods", watches=False) == 2)
        await until(lambda: it.names == (FIVE | {"demo/late"}) - {"demo/pod-0"})

    informed(server, tmp_path, scenario)


def test_what_went_while_nobody_watched_and_the_server_forgot_is_found_by_its_absence(
    server: ApiServer, tmp_path: Path
) -> None:
    async def scenario(it: Informed) -> None:
        await until(lambda: server.watching)
        server.drop()
        server.delete("pods", "demo/pod-3")
        server.put("pods", kube_pod("demo/new", "10.0.2.1"))
        server.compact()
        assert it.names == FIVE, "what is known stays while the server is away"
        server.start()
        await until(lambda: it.names == (FIVE | {"demo/new"}) - {"demo/pod-3"})

    informed(server, tmp_path, scenario)


@pytest.mark.parametrize(
    "faults",
    [
        (Fault.TORN, Fault.TORN),
        (Fault.BROKEN, Fault.BUSY, Fault.BROKEN),
        (Fault.FORBIDDEN,),
        (Fault.GARBAGE, Fault.EMPTY, Fault.ERROR_EVENT),
        (Fault.BROKEN,) * 7,
    ],
    ids=["torn", "overloaded", "forbidden", "nonsense", "for-long"],
)
def test_a_watch_that_fails_goes_on_where_it_was(
    server: ApiServer, tmp_path: Path, faults: tuple[Fault, ...]
) -> None:
    server.break_next("watch", *faults)

    async def scenario(it: Informed) -> None:
        await until(lambda: it.names == FIVE)
        await followed(it)
        lists = server.count("pods", watches=False)
        assert lists == 1 + len(faults) // informer.PATIENCE, "only many failures in a row need another list"

    informed(server, tmp_path, scenario)


@pytest.mark.parametrize("fault", [Fault.BROKEN, Fault.BUSY, Fault.GARBAGE, Fault.FORBIDDEN, Fault.GONE])
def test_a_list_that_fails_is_tried_again(server: ApiServer, tmp_path: Path, fault: Fault) -> None:
    server.break_next("list", fault, fault)
    informed(server, tmp_path, followed)


def test_bookmarks_move_the_version_on_so_that_a_quiet_watch_does_not_grow_old(
    server: ApiServer, tmp_path: Path
) -> None:
    async def scenario(it: Informed) -> None:
        await until(lambda: server.watching)
        before = it.changes
        for number in range(30):
            server.put("namespaces", kube_namespace(f"ns-{number}"))
        await until(lambda: int(it.informer.ledger.version) > server.version - 12)
        assert it.changes == before
        server.compact_to(int(it.informer.ledger.version))
        server.drop()
        server.start()
        await followed(it)
        assert server.count("pods", watches=False) == 1, "the version that a bookmark told is not gone"

    informed(server, tmp_path, scenario)


def test_a_server_that_ends_watches_is_watched_again_without_a_list(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(informer, "SHORT_S", 0.0)
    server.watch_s = 0.05

    async def scenario(it: Informed) -> None:
        await until(lambda: server.count("pods", watches=True) > 5)
        await followed(it)
        assert server.count("pods", watches=False) == 1

    informed(server, tmp_path, scenario)


def test_a_connection_that_is_silent_for_long_is_given_up(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(informer, "SHORT_S", 0.0)
    monkeypatch.setattr(api, "QUIET_S", 0.1)

    async def scenario(it: Informed) -> None:
        await until(lambda: server.count("pods", watches=True) > 2)
        await followed(it)
        assert server.count("pods", watches=False) == 1

    informed(server, tmp_path, scenario)


def test_an_outage_is_two_lines_in_the_log_however_long_it_is(
    server: ApiServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "zproxy.kube")

    async def scenario(it: Informed) -> None:
        await until(lambda: server.watching)
        server.drop()
        await until(lambda: "what is known stays" in caplog.text)
        await until(lambda: it.informer._failures > 4)
        server.start()
        await followed(it)

    informed(server, tmp_path, scenario)
    lines = [record.message for record in caplog.records if record.name == "zproxy.kube"]
    assert len(lines) == 2
    assert "cannot be reached" in lines[0]
    assert "heard again after" in lines[1]


def test_what_cannot_be_read_is_left_out_and_named(
    server: ApiServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = kube_pod("demo/broken", "no-address")
    server.put("pods", broken)

    async def scenario(it: Informed) -> None:
        await until(lambda: it.names == FIVE)
        assert "demo/broken: ValueError" in caplog.text
        await until(lambda: server.watching)
        server.put("pods", kube_pod("demo/pod-2", "nonsense"))
        await until(lambda: it.names == FIVE - {"demo/pod-2"})

    informed(server, tmp_path, scenario)


def test_only_metadata_is_asked_for_where_that_is_enough(server: ApiServer, tmp_path: Path) -> None:
    server.put("namespaces", kube_namespace("demo", "ambient"))

    async def scenario(it: Informed) -> None:
        await until(lambda: it.names == {"demo"})
        await until(lambda: server.watching)

    informed(server, tmp_path, scenario, NAMESPACES)
    assert all("PartialObjectMetadata" in accept for accept in server.accepts)
    assert "PartialObjectMetadataList" in server.accepts[0]
