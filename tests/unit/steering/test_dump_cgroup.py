"""Programs at cgroups that need no kernel: LSM programs, unknown flags, the order of later releases."""

import errno
import json
import os
from pathlib import Path

import pytest

from tests.support.btf import BtfBuilder
from zproxy.steering import dump_cgroup
from zproxy.steering.btf import Btf
from zproxy.steering.dialect import NEWEST, Dialect
from zproxy.steering.dump_cgroup import show_cgroup, show_tree
from zproxy.steering.dump_entries import View
from zproxy.steering.grammar import DumpError
from zproxy.steering.info import BtfInfo, ProgInfo
from zproxy.steering.queries import Attachment
from zproxy.steering.syscall import Kind

OLD = Dialect((7, 1))
PLAIN = View(False, False, OLD)
CONNECT4, SOCK_OPS, LSM, UNIX_CONNECT = 10, 3, 43, 49


class Programs:
    """Stands for the kernel: what is attached by attach type, and what the programs are by id."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kernel: Path) -> None:
        self.attached: dict[int, list[Attachment]] = {}
        self.infos: dict[int, ProgInfo] = {}
        self._opened: dict[int, int] = {}
        builder = BtfBuilder()
        builder.function("bpf_lsm_x", builder.prototype(builder.integer("int", 4, 1)))
        self.kernel = kernel
        kernel.touch()
        monkeypatch.setattr(dump_cgroup, "VMLINUX", kernel)
        monkeypatch.setattr(dump_cgroup, "load_vmlinux", lambda: Btf(builder.blob()))
        monkeypatch.setattr(dump_cgroup, "count", lambda _fd, kind, _flags: len(self._at(kind)))
        monkeypatch.setattr(dump_cgroup, "attached", lambda _fd, kind, _flags, capacity: self._at(kind))
        monkeypatch.setattr(dump_cgroup, "fd_by_id", self._open)
        monkeypatch.setattr(dump_cgroup, "prog_info", lambda fd: self.infos[self._opened[fd]])
        monkeypatch.setattr(dump_cgroup, "btf_info", lambda _fd: BtfInfo(1, "vmlinux", b""))

    def add(self, attach_type: int, number: int, flags: int = 2, lsm: tuple[int, int] = (0, 0)) -> None:
        info = ProgInfo(18, number, "00" * 8, 0, 8, 0, 0, (), f"zpt_{number}", True, 0, 0, 0)
        self.infos[number] = info._replace(attach_btf_object=lsm[0], attach_btf_id=lsm[1])
        self.attached.setdefault(attach_type, []).append(Attachment(number, flags))

    def _at(self, attach_type: int) -> list[Attachment]:
        if attach_type == SOCK_OPS:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return self.attached.get(attach_type, [])

    def _open(self, kind: Kind, number: int) -> int:
        if number == (0 if kind is Kind.BTF else 404):
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        fd = os.open("/dev/null", os.O_RDONLY)
        self._opened[fd] = number
        return fd


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Programs:
    return Programs(monkeypatch, tmp_path / "vmlinux")


def rows(view: View, *words: str) -> list[str]:
    return "".join(show_cgroup(["/", *words], "show", view)).splitlines()


def test_a_row_ends_in_what_an_lsm_program_hangs_on(programs: Programs) -> None:
    programs.add(CONNECT4, 7)
    programs.add(LSM, 8, lsm=(1, 3))
    programs.add(LSM, 9)
    programs.add(LSM, 10, lsm=(1, 99))
    assert rows(PLAIN)[1:] == [
        f"7        {'cgroup_inet4_connect':<15} {'multi':<15} {'zpt_7':<15} {'':<15}",
        f"8        {'lsm_cgroup':<15} {'multi':<15} {'zpt_8':<15} {'bpf_lsm_x':<15}",
        f"9        {'lsm_cgroup':<15} {'multi':<15} {'zpt_9':<15}",
        f"10       {'lsm_cgroup':<15} {'multi':<15} {'zpt_10':<15} attach_btf_obj_id=1 attach_btf_id=99",
    ]
    found = json.loads("".join(show_cgroup(["/"], "show", View(True, False, OLD))))
    assert [each.get("attach_btf_name") for each in found] == ["", "bpf_lsm_x", None, None]


def test_a_kernel_without_types_names_nothing(programs: Programs) -> None:
    programs.kernel.unlink()
    programs.add(CONNECT4, 7)
    assert rows(PLAIN)[1].endswith(f"{'zpt_7':<15}")


@pytest.mark.parametrize(("flags", "words"), [(0, ""), (1, "override"), (2, "multi"), (0x42, "unknown(42)")])
def test_flags_are_words(programs: Programs, flags: int, words: str) -> None:
    programs.add(CONNECT4, 7, flags)
    assert rows(PLAIN)[1] == f"7        cgroup_inet4_connect {words:<15} {'zpt_7':<15} {'':<15}"
    assert f'"attach_flags":"{words}"' in "".join(show_cgroup(["/"], "show", View(True, False, OLD)))


def test_effective_programs_have_no_flags(programs: Programs) -> None:
    programs.add(CONNECT4, 7)
    assert rows(PLAIN, "effective") == [
        f"ID       {'AttachType':<15} {'Name':<15}",
        f"7        {'cgroup_inet4_connect':<15} {'zpt_7':<15} {'':<15}",
    ]


def test_later_releases_have_an_order_of_their_own_and_more_hooks(programs: Programs) -> None:
    for number, attach_type in enumerate((CONNECT4, 12, UNIX_CONNECT), start=1):
        programs.add(attach_type, number)
    assert [row.split()[0] for row in rows(PLAIN)[1:]] == ["1", "2"]
    assert [row.split()[0] for row in rows(View(False, False, Dialect((7, 3))))[1:]] == ["1", "2", "3"]
    assert [row.split()[0] for row in rows(View(False, False, NEWEST))[1:]] == ["2", "1", "3"]


def test_a_program_that_went_meanwhile_is_left_out(programs: Programs) -> None:
    programs.add(CONNECT4, 404)
    programs.add(CONNECT4, 7)
    assert len(rows(PLAIN)) == 2


def test_a_directory_that_is_no_cgroup_ends_the_list(
    programs: Programs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    programs.add(CONNECT4, 7)
    whole = json.loads("".join(show_tree([str(tmp_path)], View(True, True, OLD))))
    assert {each["cgroup"] for each in whole} == {str(tmp_path), f"{tmp_path}/a", f"{tmp_path}/b"}
    monkeypatch.setattr(dump_cgroup, "count", lambda *_: os.read(-1, 1))
    with pytest.raises(DumpError, match=r"can't query bpf programs attached to .*: Bad file descriptor"):
        list(show_tree([str(tmp_path)], PLAIN))


def test_without_a_hierarchy_there_is_no_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dump_cgroup, "mounts_of", lambda _kind: [])
    with pytest.raises(DumpError, match=r"^cgroup v2 isn't mounted$"):
        list(show_tree([], PLAIN))
