"""The child that compiles and loads: every variant passes the verifier; failures are one line of JSON."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.bpf_maps import bpffs
from zproxy.steering import build, source, syscall
from zproxy.steering.hooks import HOOKS
from zproxy.steering.info import prog_info
from zproxy.steering.layout import MAPS

ROOT = Path(__file__).parents[3]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "zproxy.steering.loader", *arguments]
    return subprocess.run(
        command,
        env=os.environ | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.root
def test_everything_is_loaded_and_pinned(tmp_path: Path) -> None:
    with bpffs(tmp_path / "bpf") as root:
        for name in ("maps", "progs"):
            (root / name).mkdir()
        build.load(root / "maps", root / "progs")
        assert {path.name for path in (root / "maps").iterdir()} == set(MAPS)
        assert {path.name for path in (root / "progs").iterdir()} == set(HOOKS)
        for name, hook in HOOKS.items():
            fd = syscall.obj_get(root / "progs" / name)
            info = prog_info(fd)
            os.close(fd)
            assert (info.name, info.type, info.is_gpl) == (name, hook.prog_type, True)


@pytest.mark.root
@pytest.mark.parametrize("flags", [(), ("-DZP_HAS_MPTCP",), ("-DZP_HAS_MPTCP", "-DZP_HAS_TC_COOKIE")])
def test_every_variant_passes_the_verifier(
    flags: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a child of its own, because bcc brings LLVM into the process that imports it."""
    script = (
        "import sys; from pathlib import Path; from zproxy.steering import loader, source;"
        f"source.cflags = lambda: (*source.CFLAGS, *{flags!r});"
        "loader.load(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    with bpffs(tmp_path / "bpf") as root:
        for name in ("maps", "progs"):
            (root / name).mkdir()
        command = [sys.executable, "-c", script, str(root / "maps"), str(root / "progs")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert len(list((root / "progs").iterdir())) == len(HOOKS)


@pytest.mark.root
def test_pinned_maps_are_used_as_they_are(tmp_path: Path) -> None:
    with bpffs(tmp_path / "bpf") as root:
        for name in ("maps", "progs", "progs-new"):
            (root / name).mkdir()
        build.load(root / "maps", root / "progs")
        build.load(root / "maps", root / "progs-new")
        used = []
        for directory in ("progs", "progs-new"):
            fd = syscall.obj_get(root / directory / "zp_connect4")
            used.append(set(prog_info(fd).map_ids))
            os.close(fd)
        assert used[0] == used[1]


def test_a_missing_bcc_is_a_requirement_with_the_package(tmp_path: Path) -> None:
    (tmp_path / "bcc.py").write_text("raise ImportError('no such module')\n")
    done = run("--maps=/nowhere", "--programs=/nowhere", PYTHONPATH=f"{tmp_path}:{ROOT}")
    answer = json.loads(done.stdout)
    assert done.returncode == 1
    assert answer["reason"] == "REQUIREMENT"
    assert "apt install python3-bpfcc" in answer["error"]


def test_a_mistake_in_the_sources_is_named_with_its_line(tmp_path: Path) -> None:
    """The way from the compiler's message to the sentence, with a broken copy of the sources."""
    package = tmp_path / "zproxy"
    package.symlink_to(ROOT / "zproxy")
    script = (
        "import sys; from pathlib import Path; from zproxy.steering import loader, source;"
        "source.directory = lambda: Path(sys.argv[1]); loader.load(Path('/nowhere'), Path('/nowhere'))"
    )
    broken = tmp_path / "bpf"
    (broken / "lib").mkdir(parents=True)
    for path in (*source.directory().glob("*.c"), *source.directory().glob("lib/*.h")):
        (broken / path.relative_to(source.directory())).write_text(path.read_text())
    text = (broken / "lib" / "addr.h").read_text()
    (broken / "lib" / "addr.h").write_text(text.replace("return ZP_EXEMPT_PROBE;", "return ZP_NOTHING;", 1))
    line = text.split("return ZP_EXEMPT_PROBE;")[0].count("\n") + 1
    command = [sys.executable, "-c", script, str(broken)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert str(build.diagnose(done.stdout, done.stderr)) == (
        f"the eBPF programs do not compile: lib/addr.h line {line}: use of undeclared identifier 'ZP_NOTHING'"
    )
