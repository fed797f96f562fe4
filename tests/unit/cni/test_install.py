"""Installation: nothing half done, nothing done twice, nothing left."""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zproxy.cni import files, install
from zproxy.cni.install import Site, Step
from zproxy.errors import ConfigError

ENTRY = {"type": "zproxy-cni", "node": "node-a"}
OTHER = ENTRY | {"failOpen": True}
EXECUTABLE = b"#!/bin/true\n"
CONF = b'{"cniVersion":"0.4.0",  "name":"net", "type":"bridge"}'
LIST = b'{"cniVersion":"1.0.0",  "name":"net", "plugins":[{"type":"bridge"}]}\n\n'


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path / "net.d", tmp_path / "bin")
    made.conf_dir.mkdir()
    made.bin_dir.mkdir()
    return made


def put(site: Site, name: str, text: bytes = LIST, mode: int = 0o640) -> Path:
    path = site.conf_dir / name
    path.write_bytes(text)
    path.chmod(mode)
    return path


def everything(site: Site) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(site.conf_dir.parent)): (path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
        for directory in (site.conf_dir, site.bin_dir)
        for path in directory.iterdir()
    }


def plugins(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_bytes())["plugins"]
    return found


def results(steps: list[Step]) -> list[str]:
    return [step.result for step in steps]


def test_the_first_network_by_name_gets_the_plugin(site: Site) -> None:
    first, second = put(site, "10-net.conflist"), put(site, "9-net.conflist")
    put(site, "00-readme.txt", b"x")
    (site.conf_dir / "05-directory.conf").mkdir()
    assert results(install.install(site, ENTRY, EXECUTABLE)) == ["installed", "changed"]
    assert plugins(first) == [{"type": "bridge"}, ENTRY]
    assert stat.S_IMODE(first.stat().st_mode) == 0o640
    assert second.read_bytes() == LIST
    assert files.read(site.executable)[:2] == (EXECUTABLE, 0o755)


def test_a_single_plugin_becomes_a_list_in_its_place(site: Site) -> None:
    put(site, "10-net.conf", CONF)
    install.install(site, ENTRY, EXECUTABLE)
    assert [path.name for path in site.networks()] == ["10-net.conflist"]
    assert plugins(site.networks()[0]) == [json.loads(CONF), ENTRY]


@pytest.mark.parametrize(("name", "text"), [("a.conflist", LIST), ("a.conf", CONF), ("a.json", CONF)])
def test_what_was_there_comes_back_byte_for_byte(site: Site, name: str, text: bytes) -> None:
    put(site, name, text)
    before = everything(site)
    install.install(site, ENTRY, EXECUTABLE)
    install.install(site, OTHER, EXECUTABLE)
    assert results(install.uninstall(site)) == ["restored", "removed"]
    assert everything(site) == before
    assert install.uninstall(site) == []


@pytest.mark.parametrize(("name", "text"), [("a.conflist", LIST), ("a.conf", CONF)])
def test_doing_it_again_changes_nothing(site: Site, name: str, text: bytes) -> None:
    put(site, name, text)
    install.install(site, ENTRY, EXECUTABLE)
    before = everything(site)
    assert results(install.install(site, ENTRY, EXECUTABLE)) == ["unchanged", "unchanged"]
    assert everything(site) == before


def test_other_settings_and_another_executable_are_taken(site: Site) -> None:
    network = put(site, "10-net.conflist")
    install.install(site, ENTRY, EXECUTABLE)
    assert results(install.install(site, OTHER, b"#!/other\n")) == ["installed", "changed"]
    assert plugins(network) == [{"type": "bridge"}, OTHER]


@pytest.mark.parametrize(("name", "text"), [("a.conflist", LIST), ("a.conf", CONF)])
def test_what_another_changed_meanwhile_stays(site: Site, name: str, text: bytes) -> None:
    put(site, name, text)
    install.install(site, ENTRY, EXECUTABLE)
    [network] = site.networks()
    changed = json.loads(network.read_bytes())
    changed["plugins"].insert(1, {"type": "firewall"})
    network.write_text(json.dumps(changed))
    assert results(install.uninstall(site)) == ["changed", "removed"]
    assert [each["type"] for each in plugins(network)] == ["bridge", "firewall"]
    assert list(everything(site)) == [f"net.d/{network.name}"]


def test_settings_change_beside_what_another_changed(site: Site) -> None:
    network = put(site, "10-net.conflist")
    install.install(site, ENTRY, EXECUTABLE)
    changed = json.loads(network.read_bytes())
    changed["plugins"].append({"type": "firewall"})
    network.write_text(json.dumps(changed))
    assert results(install.install(site, ENTRY, EXECUTABLE)) == ["unchanged", "unchanged"]
    install.install(site, OTHER, EXECUTABLE)
    assert plugins(network) == [{"type": "bridge"}, {"type": "firewall"}, OTHER]
    install.uninstall(site)
    assert plugins(network) == [{"type": "bridge"}, {"type": "firewall"}]


def test_a_network_that_its_owner_wrote_anew_gets_the_plugin_again(site: Site) -> None:
    network = put(site, "10-net.conflist")
    install.install(site, ENTRY, EXECUTABLE)
    newer = LIST.replace(b"bridge", b"ptp")
    network.write_bytes(newer)
    install.install(site, ENTRY, EXECUTABLE)
    assert plugins(network) == [{"type": "ptp"}, ENTRY]
    install.uninstall(site)
    assert network.read_bytes() == newer


def test_what_was_saved_of_a_network_that_has_gone_is_removed(site: Site) -> None:
    network = put(site, "10-net.conflist")
    install.install(site, ENTRY, EXECUTABLE)
    network.write_bytes(LIST)
    install.uninstall(site)
    assert list(everything(site)) == ["net.d/10-net.conflist"]
    assert network.read_bytes() == LIST


def test_the_executable_may_stay_for_pods_that_were_made_with_it(site: Site) -> None:
    put(site, "10-net.conflist")
    install.install(site, ENTRY, EXECUTABLE)
    assert results(install.uninstall(site, keep_plugin=True)) == ["restored"]
    assert site.executable.exists()


def test_every_network_that_has_it_is_restored(site: Site) -> None:
    put(site, "20-old.conflist")
    install.install(site, ENTRY, EXECUTABLE)
    put(site, "10-new.conflist")
    assert results(list(install.status(site, EXECUTABLE))) == [
        "installed",
        "without zproxy-cni",
        "unused: the runtime takes 10-new.conflist",
    ]
    install.install(site, ENTRY, EXECUTABLE)
    assert results(install.uninstall(site)) == ["restored", "restored", "removed"]


def test_the_status_says_what_is_missing(site: Site) -> None:
    assert results(list(install.status(site, EXECUTABLE))) == ["missing", "missing"]
    put(site, "10-net.conflist")
    put(site, "20-broken.conflist", b"{")
    assert results(list(install.status(site, EXECUTABLE))) == ["missing", "without zproxy-cni"]
    install.install(site, ENTRY, EXECUTABLE)
    assert results(list(install.status(site, EXECUTABLE))) == ["installed", "installed"]
    assert results(list(install.status(site, b"newer"))) == ["another version's", "installed"]


@pytest.mark.parametrize(
    ("networks", "sentence"),
    [
        ({}, "there is no network in"),
        ({"10-net.conflist": b"{"}, "10-net.conflist is no JSON"),
        ({"10-net.conflist": CONF}, "it has no list of `plugins`"),
        ({"10-net.conf": CONF, "10-net.conflist": LIST}, "10-net.conflist, which is there already"),
    ],
)
def test_what_cannot_be_done_changes_nothing(site: Site, networks: dict[str, bytes], sentence: str) -> None:
    for name, text in networks.items():
        put(site, name, text)
    before = everything(site)
    with pytest.raises(ConfigError, match=sentence):
        install.install(site, ENTRY, EXECUTABLE)
    assert everything(site) == before


def test_a_missing_directory_is_a_sentence(site: Site) -> None:
    put(site, "10-net.conflist")
    site.bin_dir.rmdir()
    with pytest.raises(ConfigError, match="--bin-dir"):
        install.install(site, ENTRY, EXECUTABLE)
    with pytest.raises(ConfigError, match="--conf-dir"):
        install.install(Site(site.conf_dir / "none", site.bin_dir), ENTRY, EXECUTABLE)
    assert install.uninstall(Site(site.conf_dir / "none", site.bin_dir)) == []


@pytest.mark.parametrize(("name", "text"), [("a.conflist", LIST), ("a.conf", CONF)])
def test_broken_off_anywhere_there_is_a_network_and_the_next_try_ends_it(
    site: Site, name: str, text: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each write and removal is one moment; before each the machine stops, once."""
    put(site, name, text)
    before = everything(site)
    for undertaken in (lambda: install.install(site, ENTRY, EXECUTABLE), lambda: install.uninstall(site)):
        for number in range(10):
            if not stopped_at(number, undertaken, monkeypatch):
                break
            first = json.loads(site.networks()[0].read_bytes())
            assert first["name"] == "net"
            if "zproxy-cni" in str(first):
                assert site.executable.exists()
        else:
            pytest.fail("it never ended")
        assert ("zproxy-cni" in everything(site).get("net.d/a.conflist", (b"", 0))[0].decode()) is (
            site.executable.exists()
        )
    assert everything(site) == before


def stopped_at(number: int, work: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Let `number` changes of files happen and no more; return whether there was one more to come."""
    left = [number]

    class Stop(BaseException):
        pass

    def counted(change: Callable[..., Any]) -> Callable[..., Any]:
        def changing(*arguments: Any) -> Any:
            if not left[0]:
                raise Stop
            left[0] -= 1
            return change(*arguments)

        return changing

    with monkeypatch.context() as patch:
        patch.setattr(files, "write", counted(files.write))
        patch.setattr(files, "remove", counted(files.remove))
        try:
            work()
        except Stop:
            return True
    return False


def test_the_first_by_bytes_is_what_go_sorts_first(site: Site) -> None:
    for name in ("b.conf", "B.conf", "ä.conf", "_.conf"):
        put(site, name, CONF)
    assert [os.fsencode(path.name) for path in site.networks()] == sorted(
        os.fsencode(name) for name in os.listdir(site.conf_dir)
    )
