"""The lab as `make demo` uses it: the command itself, from nothing to nothing."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.captured import musl_stub
from zproxy.config import PIN_ROOT, RUN_ROOT
from zproxy.lab import inside, jobs, topology
from zproxy.lab.app import pattern
from zproxy.lab.layout import SERVICE
from zproxy.lab.lifecycle import Lab
from zproxy.lab.resolver import LARGE

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

SERVER = "http://10.244.2.5:8080"
SERVER6 = "http://[fd00:10:244:2::5]:8080"
END = "== end =="
OUTSIDE, OUTSIDE_IPS = "www.example.com", {"203.0.113.80", "2001:db8::80"}
NAMES = ("server", "server.demo", "server.demo.svc", SERVICE.hostname, f"{SERVICE.hostname}.")
SIZE = 100_000_000


def zproxy(*words: str) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, "-P", "-m", "zproxy", *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=90, env=inside.environment())


def done(*words: str) -> str:
    result = zproxy(*words)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def curl(*words: str) -> str:
    return done("lab", "exec", "demo/client", "--", "curl", "-sS", "--max-time", "60", *words)


@pytest.fixture(scope="module", autouse=True)
def _the_only_one() -> Iterator[None]:
    """The lab's names are known to users: one that is up is theirs."""
    assert not topology.present(Lab().layout), "a lab is up already: take it down with `zproxy lab down`"
    yield
    done("lab", "down")


@pytest.fixture
def lab() -> Lab:
    """The lab, up; it stays so for the next test."""
    done("lab", "up")
    return Lab()


def test_the_demo_goes_from_nothing_to_nothing_twice() -> None:
    done("lab", "down")
    for _ in range(2):
        assert "enrolled demo/server on node-b" in done("lab", "up")
        proven = done("lab", "prove")
        assert [f"Claim {number}: " in proven for number in range(1, 7)] == [True] * 6
        assert proven.count("  => holds\n") == 6
        done("lab", "down")
        assert topology.present(Lab().layout) == []
        assert not any(jobs.running(job) for job in Lab().jobs)
        assert not any(
            (root / name).exists() for root in (RUN_ROOT, PIN_ROOT) for name in ("lab", "node-a", "node-b")
        )
    assert done("lab", "down") == "there is no lab\n"


def test_a_second_up_changes_nothing(lab: Lab) -> None:
    pids = [jobs.running(job) for job in lab.jobs]
    assert done("lab", "up").startswith("the lab is already up\n")
    assert [jobs.running(job) for job in lab.jobs] == pids


@pytest.mark.usefixtures("lab")
@pytest.mark.parametrize(("url", "ip"), [(SERVER, "10.244.1.5:"), (SERVER6, "[fd00:10:244:1::5]:")])
def test_the_app_sees_the_client_pods_own_address(url: str, ip: str) -> None:
    assert json.loads(curl(f"{url}/get"))["origin"].startswith(ip)


@pytest.mark.usefixtures("lab")
@pytest.mark.parametrize(
    "url",
    [
        *("http://10.96.0.80:8080", "http://10.96.0.80", "http://[fd00:10:96::80]"),
        *(f"http://{name}:8080" for name in NAMES),
    ],
)
def test_the_service_leads_to_the_server_pod(url: str) -> None:
    assert json.loads(curl(f"{url}/get"))["origin"].startswith(("10.244.1.5:", "[fd00:10:244:1::5]:"))


@pytest.mark.usefixtures("lab")
@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("www.example.com",), "203.0.113.80"),
        (("www.example.com", "+tcp"), "203.0.113.80"),
        (("whoami.example.com", "TXT"), '"asked 10.96.0.10 over udp"'),
        (("@192.0.2.53", "whoami.example.com", "TXT"), '"asked 192.0.2.53 over udp"'),
        (("@192.0.2.53", "whoami.example.com", "TXT", "+tcp"), '"asked 192.0.2.53 over tcp"'),
    ],
)
def test_pods_reach_the_resolver_that_they_ask(words: tuple[str, ...], answer: str) -> None:
    for pod in ("demo/client", "demo/server"):
        assert done("lab", "exec", pod, "--", "dig", "+short", *words).strip() == answer


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> str:
    return musl_stub(tmp_path_factory.mktemp("musl"))


@pytest.mark.usefixtures("lab")
@pytest.mark.parametrize("pod", ["demo/client", "demo/server"])
def test_every_resolver_of_apps_finds_every_form_of_a_name(stub: str, pod: str) -> None:
    """glibc's, musl's, busybox's own and BIND's, each from a pod with Kubernetes' resolv.conf."""
    dig = "dig +short +search +ndots=5"
    resolvers = (
        "getent ahosts NAME",
        f"{stub} NAME",
        "busybox nslookup NAME",
        f"{dig} NAME A; {dig} NAME AAAA",
    )
    asked = [(name, each.replace("NAME", name)) for name in (*NAMES, OUTSIDE) for each in resolvers]
    script = f"; echo {END}; ".join(command for _, command in asked)
    shown = done("lab", "exec", pod, "--", "sh", "-c", script).split(END)
    for (name, command), answer in zip(asked, shown, strict=True):
        expected = OUTSIDE_IPS if name == OUTSIDE else set(SERVICE.vips)
        assert expected <= set(answer.split()), command


@pytest.mark.usefixtures("lab")
def test_large_answers_arrive_by_every_resolver() -> None:
    dig = ("lab", "exec", "demo/client", "--", "dig", "+short", "large.example.com", "TXT")
    large = sorted(done(*dig, "+bufsize=512").splitlines())
    assert len(large) == LARGE
    assert large == sorted(done(*dig, "+tcp").splitlines())


def test_policy_is_shown_twice_and_leaves_the_mesh_as_it_was(lab: Lab) -> None:
    before = lab.mesh.read_text()
    for _ in range(2):
        shown = done("lab", "policy")
        assert "the open connection goes on" in shown
        assert "explicitly denied by: demo/deny-the-client" in shown
        assert shown.endswith("a new connection is answered with 200\n")
        assert lab.mesh.read_text() == before


def interrupted_after(word: str) -> bool:
    """Show policy and interrupt it after a line; tell whether that came in time."""
    argv = [sys.executable, "-P", "-m", "zproxy", "lab", "policy"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=inside.environment()) as process:
        assert process.stdout is not None
        assert any(line.startswith(word) for line in process.stdout)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    return process.returncode != 0


def test_policy_that_is_interrupted_lets_the_client_in_again(lab: Lab) -> None:
    before = lab.mesh.read_text()
    # On a busy machine the run may be over before the signal reaches it; then it was not interrupted.
    assert any(interrupted_after("ALLOW") for _ in range(5))
    assert lab.mesh.read_text() == before
    assert json.loads(curl(f"{SERVER}/get"))["origin"].startswith("10.244.1.5:")


def test_ip_netns_exec_is_steered_as_well(lab: Lab) -> None:
    argv = ["ip", "netns", "exec", "demo-client", "curl", "-sS", "-w", " %{local_port}", f"{SERVER}/get"]
    body, _, port = subprocess.run(argv, capture_output=True, text=True, timeout=30).stdout.rpartition(" ")
    assert json.loads(body)["origin"].startswith("10.244.1.5:")
    rows = json.loads(done("--node", "node-a", "connections", "-o", "json"))
    assert [row["hbone_addr"] for row in rows if row["src"] == f"10.244.1.5:{port}"] == ["10.244.2.5:8080"]
    lines = lab.daemons[0].log.read_text().splitlines()
    assert sum(f"src.addr=10.244.1.5:{port} " in line for line in lines) == 1


@pytest.mark.usefixtures("lab")
def test_exec_passes_the_exit_status_on() -> None:
    assert zproxy("lab", "exec", "demo/server", "--", "sh", "-c", "exit 37").returncode == 37
    assert zproxy("lab", "exec", "demo/client", "--", "curl", "-sS", "http://10.244.2.5:81/").returncode != 0


@pytest.mark.usefixtures("lab")
@pytest.mark.parametrize("url", [SERVER, SERVER6])
def test_a_hundred_megabytes_arrive_unchanged_each_way(url: str, tmp_path: Path) -> None:
    digest = hashlib.sha256()
    for chunk in pattern(SIZE):
        digest.update(chunk)
    down = tmp_path / "down"
    curl("-o", str(down), f"{url}/bytes/{SIZE}")
    with down.open("rb") as received:
        assert hashlib.file_digest(received, "sha256").hexdigest() == digest.hexdigest()
    answer = json.loads(curl("--data-binary", f"@{down}", "-H", "Expect:", f"{url}/post"))
    assert (answer["length"], answer["sha256"]) == (SIZE, digest.hexdigest())


@pytest.mark.usefixtures("lab")
def test_any_enrolled_pair_can_be_proven_also_without_an_app() -> None:
    rows = json.loads(done("prove", "demo/server", "demo/client", "--port", "9000", "-o", "json"))
    assert [row["against"] for row in rows] == [[]] * 5
    lines = [line for row in rows for item in row["evidence"] for line in item["lines"]]
    assert any("dst.hbone_addr=10.244.1.5:9001" in line for line in lines)


def test_a_proof_fails_when_the_mesh_is_not_there(lab: Lab) -> None:
    """Counter-evidence from the kernel: an iptables rule redirects, a tunnel device is up."""
    netns = lab.layout.pods[0].netns
    for command in (
        "iptables -t nat -A OUTPUT -p udp --dport 1 -j REDIRECT --to-ports 2",
        "ip link add vx0 type vxlan id 7 dstport 4789 dev eth0",
        "ip link set vx0 up",
    ):
        subprocess.run(["ip", "netns", "exec", netns, *command.split()], check=True)
    try:
        result = zproxy("lab", "prove")
    finally:
        subprocess.run(["ip", "netns", "exec", netns, "ip", "link", "del", "vx0"], check=True)
        subprocess.run(["ip", "netns", "exec", netns, "iptables", "-t", "nat", "-F"], check=True)
    assert result.returncode == 1
    assert "demo/client has the tunnel device vx0 (vxlan)" in result.stdout
    assert "1 packet-filter rules redirect traffic inside demo/client" in result.stdout
    assert result.stderr == "Error: claim 4 of 6 does not hold\n"


def test_a_lab_whose_daemons_were_killed_is_mended_by_up(lab: Lab) -> None:
    for job in lab.daemons:
        for pid in jobs.running(job):
            os.kill(pid, signal.SIGKILL)
    assert "removed from a broken lab" in done("lab", "up")
    assert json.loads(curl(f"{SERVER}/get"))["origin"].startswith("10.244.1.5:")
