"""The Vagrantfile: Vagrant itself takes it, and it brings what provisioning needs."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
VAGRANTFILE = (ROOT / "vagrant" / "Vagrantfile").read_text()


@pytest.mark.root  # the first time it installs Vagrant
@pytest.mark.timeout(300)
def test_vagrant_validates_it() -> None:
    done = subprocess.run(["make", "-s", "lint-vagrant"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "validated successfully" in done.stdout


def test_it_provisions_by_the_script_with_options_that_it_has() -> None:
    (path,) = re.findall(r'provision "shell", path: "([^"]+)"', VAGRANTFILE)
    script = (ROOT / "vagrant" / path).read_text()
    (words,) = re.findall(r"args: \[(.+)\]", VAGRANTFILE)
    options = re.findall(r'"(--[a-z]+)"', words)
    assert options
    assert all(f"\t{option}) " in script for option in options)


def test_both_providers_get_the_same_machine() -> None:
    providers = re.findall(
        r'config\.vm\.provider "(\w+)" do \|machine\b[^|]*\|\n(.*?)\n  end', VAGRANTFILE, re.DOTALL
    )
    assert [name for name, _ in providers] == ["virtualbox", "libvirt"]
    assert all(
        "machine.cpus = CPUS" in body and "machine.memory = MEMORY_MB" in body for _, body in providers
    )


def test_nothing_that_a_build_makes_is_copied_into_the_machine() -> None:
    (excluded,) = re.findall(r"rsync__exclude: %w\[(.+?)\]\n", VAGRANTFILE, re.DOTALL)
    ignored = (ROOT / ".gitignore").read_text().split()
    assert {".git/", *ignored} <= set(excluded.split())
