"""The table of mounts, read as the kernel writes it."""

from pathlib import Path

from zproxy.steering.mounts import Mount, is_on, mounts, mounts_of

TABLE = r"""proc /proc proc rw,nosuid,nodev,noexec,relatime 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,nsdelegate 0 0
bpf /sys/fs/bpf bpf rw,mode=700 0 0
bpf /tmp/a\040b\134c bpf rw 0 0
broken
"""


def test_lines_become_mounts_with_their_escapes_undone(tmp_path: Path) -> None:
    table = tmp_path / "mounts"
    table.write_text(TABLE)
    assert [mount.path for mount in mounts(table)] == [
        "/proc",
        "/sys/fs/cgroup/unified",
        "/sys/fs/bpf",
        "/tmp/a b\\c",
    ]
    assert mounts_of("cgroup2", table) == [Mount("/sys/fs/cgroup/unified", "cgroup2", ("rw", "nsdelegate"))]


def test_a_path_lies_on_the_filesystem_that_is_mounted_above_it() -> None:
    assert is_on("/proc/self/status", "proc")
    assert not is_on("/proc/self/status", "bpf")
    assert not is_on("/no/such/path", "proc")
