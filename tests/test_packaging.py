"""The lock pins what is declared, the venv holds what is pinned, and a wheel carries every file of zproxy."""

import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
LOCK = (ROOT / "requirements.lock").read_text()
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINS = dict(re.findall(r"^([a-z0-9.-]+)==([^ ;\\]+)", LOCK, re.MULTILINE))


def canonical(requirement: str) -> str:
    """Return the name that a requirement is for, as the lock spells it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[ <>=!~;\[]", requirement, maxsplit=1)[0]).lower()


@pytest.mark.parametrize(
    "requirement", [*PROJECT["project"]["dependencies"], *PROJECT["dependency-groups"]["dev"]]
)
def test_the_lock_pins_what_is_declared(requirement: str) -> None:
    assert canonical(requirement) in PINS


def test_every_pin_has_hashes() -> None:
    entries = re.split(r"^(?=[a-z])", LOCK, flags=re.MULTILINE)[1:]
    assert len(entries) == len(PINS)
    assert all("--hash=sha256:" in entry for entry in entries)


def test_the_lock_names_no_address() -> None:
    assert not re.search(r"://|--(extra-)?index|--find-links", LOCK)


@pytest.mark.parametrize("name", sorted(PINS))
def test_the_venv_itself_holds_each_pin(name: str) -> None:
    """Not the distribution, whose older copy would be seen when the venv had none."""
    installed = metadata.distribution(name)
    assert installed.version == PINS[name]
    assert Path(str(installed.locate_file(""))) == Path(sysconfig.get_paths()["purelib"])


def test_a_wheel_carries_every_module_and_bpf_source(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    wanted = {path: path for path in sources("zproxy", "*.py")}
    wanted |= {path: path.replace("cli/", "zproxy_cli/", 1) for path in sources("cli", "*.py")}
    wanted |= {path: path.replace("bpf/", "zproxy/_bpf/", 1) for path in sources("bpf", "*.[ch]")}
    for path in (*wanted, "pyproject.toml", "README.md", "LICENSE", *sources("LICENSES", "*.txt")):
        copy = tree / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((ROOT / path).read_bytes())
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--quiet",
    ]
    subprocess.run([*build, "--wheel-dir", str(tmp_path), str(tree)], check=True, timeout=60)
    [wheel] = tmp_path.glob("*.whl")
    assert set(wanted.values()) - set(zipfile.ZipFile(wheel).namelist()) == set()


def sources(top: str, pattern: str) -> list[str]:
    """Return the files of that pattern below a directory of the project."""
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / top).rglob(pattern))
