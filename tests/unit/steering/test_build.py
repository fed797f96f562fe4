"""What a failed loader amounts to, in one sentence; and the loader itself, run for real."""

import json
import sys
from pathlib import Path

import pytest

from zproxy.errors import RequirementError, SteeringError
from zproxy.steering import build
from zproxy.steering.build import diagnose

COMPILER = """\
zp_sock.c:132:7: error: use of undeclared identifier 'nope'
        if (nope)
            ^
1 error generated.
Traceback (most recent call last):
Exception: Failed to compile BPF module <text>
"""
VERIFIER = """\
bpf: Failed to load program: Permission denied
0: R1=ctx(off=0,imm=0) R10=fp0
; if (!sk)
0: (61) r2 = *(u32 *)(r1 +4)
R1 invalid mem access 'sock_or_null'
processed 12 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0

HINT: something of bcc's
Traceback (most recent call last):
  File "x.py", line 1
Exception: Failed to load BPF program b'zp_connect4': Permission denied
"""


def test_an_error_that_the_loader_names_is_passed_on() -> None:
    answer = json.dumps({"reason": "REQUIREMENT", "error": "install it"})
    found = diagnose(answer, "")
    assert (type(found), str(found)) == (RequirementError, "install it")
    found = diagnose(json.dumps({"reason": "STEERING", "error": "broken"}), "")
    assert (type(found), str(found)) == (SteeringError, "broken")


def test_a_compiler_error_names_file_and_line() -> None:
    found = diagnose("", COMPILER)
    assert str(found) == (
        "the eBPF programs do not compile: zp_sock.c line 132: use of undeclared identifier 'nope'"
    )


def test_the_verifiers_conclusion_is_quoted() -> None:
    found = diagnose("", VERIFIER)
    assert type(found) is SteeringError
    assert str(found) == (
        "the kernel refused the eBPF program zp_connect4: R1 invalid mem access 'sock_or_null'"
    )


def test_a_helper_that_the_kernel_lacks_means_an_old_kernel() -> None:
    text = VERIFIER.replace("R1 invalid mem access 'sock_or_null'", "invalid func unknown#187")
    assert str(diagnose("", text)).endswith("unknown#187; zproxy needs Linux 6.6 or newer")


@pytest.mark.parametrize("text", ["Exception: Need super-user privileges to run", "Operation not permitted"])
def test_a_refusal_is_a_requirement(text: str) -> None:
    found = diagnose("", text)
    assert type(found) is RequirementError
    assert "CAP_BPF" in str(found)


def test_anything_else_is_its_last_line() -> None:
    assert str(diagnose("", "what\nOSError: [Errno 28] No space left on device\n")) == (
        "the eBPF loader failed: OSError: [Errno 28] No space left on device"
    )
    assert str(diagnose("", "")) == "the eBPF loader failed: it ended without a word"


def test_a_loader_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    (tmp_path / "python").write_text("#!/bin/sh\necho 'No module named zproxy' >&2\nexit 1\n")
    (tmp_path / "python").chmod(0o700)
    with pytest.raises(SteeringError, match="the eBPF loader failed: No module named zproxy"):
        build.load(tmp_path / "maps", tmp_path / "programs")


def test_a_loader_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(build, "TIMEOUT_S", 0.05)
    (tmp_path / "python").write_text("#!/bin/sh\nexec sleep 5\n")
    (tmp_path / "python").chmod(0o700)
    with pytest.raises(SteeringError, match="overloaded"):
        build.load(tmp_path / "maps", tmp_path / "programs")
