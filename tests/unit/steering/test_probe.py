"""Facts of a machine, taken one by one; a fact that cannot be had hides no other."""

import os
import platform
import socket
from pathlib import Path

import pytest

from tests.support.bpf_maps import attached_to_cgroup, program
from zproxy.model.capabilities import SYS_ADMIN
from zproxy.steering import probe
from zproxy.steering.info import AttachType, ProgType, prog_info
from zproxy.steering.probe import (
    Answer,
    Hook,
    abandoned,
    ask_child,
    capabilities,
    cgroup_root,
    first_line,
    foreign_hooks,
    gather,
    source_ports,
)


def test_the_effective_capabilities_are_read_from_the_status(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tx\nCapPrm:\t0000000000000001\nCapEff:\t0000000000201000\n")
    assert capabilities(status) == 1 << 21 | 1 << 12
    assert capabilities(tmp_path / "none") == 0


def test_maps_may_be_read_with_cap_sys_admin_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "capabilities", lambda: 1 << SYS_ADMIN.bit)
    assert probe.may_read_maps()
    monkeypatch.setattr(probe, "capabilities", lambda: ~(1 << SYS_ADMIN.bit))
    assert not probe.may_read_maps()


def test_a_child_says_a_word_or_why_it_could_not() -> None:
    assert ask_child("print('noise'); print('0.26.0')") == Answer(True, "0.26.0")
    assert ask_child("import no_such_module") == Answer(
        False, "ModuleNotFoundError: No module named 'no_such_module'"
    )
    assert ask_child("raise SystemExit(3)") == Answer(False, "exit status 3")


def test_a_child_does_not_import_what_lies_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bcc.py").write_text("raise SystemExit('planted')")
    monkeypatch.chdir(tmp_path)
    assert "planted" not in ask_child("import bcc; print(bcc.__version__)").text


def test_a_node_is_abandoned_when_nobody_answers_its_socket(tmp_path: Path) -> None:
    for node in ("live", "dead"):
        (tmp_path / node).mkdir()
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(tmp_path / node / "control.sock"))
    (tmp_path / "live" / "control.sock").unlink()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "live" / "control.sock"))
        server.listen(1)
        assert abandoned(["live", "dead", "none"], tmp_path) == ["dead", "none"]


def test_a_busy_daemon_is_not_abandoned(tmp_path: Path) -> None:
    (tmp_path / "busy").mkdir()
    path = str(tmp_path / "busy" / "control.sock")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as waiting:
        server.bind(path)
        server.listen(0)
        waiting.connect(path)
        assert abandoned(["busy"], tmp_path) == []


def test_the_first_line_of_a_file_that_is_not_there_is_empty(tmp_path: Path) -> None:
    (tmp_path / "value").write_text("bbr\nmore\n")
    assert first_line(tmp_path / "value") == "bbr"
    assert first_line(tmp_path / "none") == ""


def test_the_range_of_source_ports_is_read_from_its_switch(tmp_path: Path) -> None:
    switch = tmp_path / "ip_local_port_range"
    assert source_ports(switch) == (0, 0)
    switch.write_text("40000\t40999\n")
    assert source_ports(switch) == (40000, 40999)
    switch.write_text("many\n")
    assert source_ports(switch) == (0, 0)


def test_hooks_of_what_is_no_cgroup_are_none(tmp_path: Path) -> None:
    assert foreign_hooks(str(tmp_path)) == []
    assert foreign_hooks(str(tmp_path / "none")) == []


@pytest.mark.root
def test_this_machine_has_what_the_other_root_tests_need() -> None:
    facts = gather()
    assert (facts.system, facts.release) == ("Linux", platform.release())
    assert facts.bpf.is_good
    assert facts.bcc.is_good
    assert facts.tls.is_good
    assert facts.has_headers
    assert all(facts.tools.values())
    assert facts.cgroup is not None
    assert facts.cgroup.is_whole
    assert facts.capabilities >> SYS_ADMIN.bit & 1


@pytest.mark.root
@pytest.mark.parametrize(("flags", "is_exclusive"), [(0, True), (2, False)])
def test_a_program_of_others_at_a_hook_is_named(flags: int, is_exclusive: bool) -> None:
    root = cgroup_root()
    assert root is not None
    folder = Path(root.path) / f"zpt-{os.getpid()}"
    folder.mkdir()
    kind, hook = ProgType.CGROUP_SOCK_ADDR, AttachType.CGROUP_INET4_CONNECT
    try:
        with program(kind, hook, "zpt_other") as fd, attached_to_cgroup(fd, folder, hook, flags):
            found = foreign_hooks(str(folder))
            assert found == [Hook("cgroup_inet4_connect", prog_info(fd).id, "zpt_other", is_exclusive)]
        with program(kind, hook, "zp_connect4") as fd, attached_to_cgroup(fd, folder, hook, flags):
            assert foreign_hooks(str(folder)) == []
    finally:
        folder.rmdir()
