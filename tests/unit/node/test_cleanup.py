"""Steps of a cleanup, on directories and namespaces without eBPF; the whole is tested with daemons."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.netns import Namespace, pair
from tests.support.podstate import state_of
from zproxy.errors import ConfigError, EnrollError, RequirementError, SteeringError
from zproxy.node.cleanup import cleanup, refuse_living, unenroll
from zproxy.node.present import Site
from zproxy.node.records import Record
from zproxy.node.routes import PodNetwork


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site("node-a", tmp_path / "pins", tmp_path / "run")


@pytest.fixture
def pod(site: Site) -> Iterator[Namespace]:
    """A namespace that enrolment has prepared and recorded."""
    with pair() as (made, _):
        former = PodNetwork(made.netns).prepare()
        site.records.save(Record("demo/client", "/nowhere", made.netns.cookie(), None, former))
        yield made


def paths(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


@pytest.mark.root
def test_a_dry_run_promises_what_a_real_one_does(site: Site, tmp_path: Path) -> None:
    with pair() as (made, _):
        state = state_of(made)
        former = PodNetwork(made.netns).prepare()
        site.records.save(Record("demo/client", "/nowhere", made.netns.cookie(), None, former))
        (site.run / "control.sock").touch()
        site.lock.touch()
        before, changed = paths(tmp_path), state_of(made)
        promised = cleanup(site, dry_run=True)
        assert (paths(tmp_path), state_of(made)) == (before, changed)
        done = cleanup(site)
        assert state_of(made) == state
    assert paths(tmp_path) == []
    assert [each.kind for each in done] == ["network", "record", "file", "file", "directory"]
    assert {each.result for each in done} == {"gone"}
    assert {(each.kind, each.what) for each in done} <= {(each.kind, each.what) for each in promised}


@pytest.mark.root
def test_one_pod_goes_and_the_rest_of_the_node_stays(site: Site, pod: Namespace) -> None:
    site.records.save(Record("demo/other", "/nowhere", 1 << 60, None, {}))
    assert [each.kind for each in unenroll(site, "demo/client")] == ["network", "record"]
    assert [record.pod for record in site.records.peek()] == ["demo/other"]
    assert not any("0x111" in line for line in state_of(pod))
    with pytest.raises(EnrollError, match="demo/client is not enrolled on node node-a"):
        unenroll(site, "demo/client")


@pytest.mark.root
def test_a_file_of_somebody_else_is_left_and_named(site: Site) -> None:
    (site.run / "pods").mkdir(parents=True)
    (site.run / "notes").touch()
    done = cleanup(site)
    assert (site.run / "notes").exists()
    assert done[-1].result == "failed: Directory not empty"


@pytest.mark.root
def test_a_stranger_among_the_pins_stops_it_before_anything_is_changed(site: Site, pod: Namespace) -> None:
    state = state_of(pod)
    (site.pins.directory / "stranger").mkdir(parents=True)
    with pytest.raises(SteeringError, match=r"stranger is not zproxy's"):
        cleanup(site)
    assert state_of(pod) == state
    with pytest.raises(SteeringError, match="one pod cannot be taken out alone"):
        unenroll(site, "demo/client")


@pytest.mark.root
def test_a_living_daemon_is_named_and_nothing_is_touched(site: Site, tmp_path: Path) -> None:
    site.run.mkdir(parents=True)
    before = paths(tmp_path)
    with site.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for work in (lambda: cleanup(site), lambda: refuse_living([site])):
            with pytest.raises(ConfigError, match=rf"is alive \(pid {os.getpid()}\); stop it first: kill"):
                work()
        with pytest.raises(ConfigError, match="or leave out --force"):
            unenroll(site, "demo/client")
    assert paths(tmp_path) == [*before, "run/node-a/lock"]


def test_it_takes_root(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(RequirementError, match="takes root"):
        cleanup(site)


@pytest.mark.root
def test_what_others_put_into_a_pod_stays(site: Site) -> None:
    with pair() as (made, _):
        PodNetwork(made.netns).prepare()
        record = Record("demo/client", "/nowhere", made.netns.cookie(), "sa", {}, is_external=True)
        site.records.save(record)
        before = state_of(made)
        assert [done.kind for done in cleanup(site) if done.kind in {"network", "record"}] == ["record"]
        assert state_of(made) == before
