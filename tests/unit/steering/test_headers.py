"""The stub header tree."""

import re
from pathlib import Path

import pytest

from zproxy.errors import RequirementError
from zproxy.steering.headers import make_tree


@pytest.fixture
def libc(tmp_path: Path) -> Path:
    for name in ("linux", "asm", "asm-generic"):
        (tmp_path / "usr" / name).mkdir(parents=True)
        (tmp_path / "usr" / name / "types.h").touch()
    return tmp_path / "usr"


def test_the_tree_has_what_the_compiler_includes(libc: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    make_tree(tree, libc)
    for name in ("kconfig", "version", "types", "log2"):
        assert (tree / "include" / "linux" / f"{name}.h").is_file(), name
    for name in ("asm/page.h", "uapi/linux/types.h", "uapi/asm/types.h", "uapi/asm-generic/types.h"):
        assert (tree / "include" / name).is_file(), name


def test_missing_headers_are_a_requirement_with_the_package(libc: Path, tmp_path: Path) -> None:
    (libc / "linux" / "types.h").unlink()
    with pytest.raises(RequirementError, match=re.escape("apt install linux-libc-dev")):
        make_tree(tmp_path / "tree", libc)
