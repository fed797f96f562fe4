"""Ways in which an app might try to get past the straw: each must end at 15001, or nowhere.

The app is another process in the pod's namespace, mostly with what a container has by default or more.
Clearing tc and raw sockets have tests of their own.
"""

import array
import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.netns import PREFIX, Namespace
from tests.support.straw import Arrival, Straw, attached, size_of
from zproxy.config import PIN_ROOT
from zproxy.model.addr import Endpoint
from zproxy.net.netns import Netns
from zproxy.steering.cgroups import root_cgroup
from zproxy.steering.steering import Steering

pytestmark = pytest.mark.root

V4, V6 = "203.0.113.9", "2001:db8::9"
ISTIO_MARKS = (0x539, 0x111)
DEFAULT_CAPABILITIES = (
    "+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,"
    "+net_bind_service,+net_raw,+sys_chroot,+mknod,+audit_write,+setfcap"
)
"""What container runtimes give to a root process."""
DIAL = """
import json, os, socket, sys
ip, port, mark, device, forks, wait = json.loads(sys.argv[1])
for _ in range(forks):
    if os.fork():
        os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
sock = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET)
if mark:
    sock.setsockopt(socket.SOL_SOCKET, 36, mark)
if device:
    sock.setsockopt(socket.SOL_SOCKET, 25, device.encode())
sock.settimeout(wait)
sock.connect((ip, port))
"""


def run_in(pod: Namespace, code: str, argument: object, *prefix: str) -> str:
    """Run Python in the pod's namespace; `prefix` is what changes the process first.

    Only the network is the pod's: `ip netns exec` would hide cgroups and pins behind a /sys of its own.
    """
    command = [
        "nsenter",
        f"--net={pod.netns.path}",
        *prefix,
        sys.executable,
        "-c",
        code,
        json.dumps(argument),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout


def dial_from(
    pod: Namespace,
    *prefix: str,
    ip: str = V4,
    mark: int = 0,
    device: str = "",
    forks: int = 0,
    wait: float = 5,
) -> None:
    run_in(pod, DIAL, [ip, 80, mark, device, forks, wait], *prefix)


def with_capabilities(*names: str, uid: int = 65534) -> list[str]:
    only = ",".join(["-all", *(f"+{name}" for name in names)])
    return [
        "setpriv", f"--reuid={uid}", "--clear-groups", f"--inh-caps={only}", f"--ambient-caps={only}",
        f"--bounding-set={only}",
    ]  # fmt: skip


CONTAINER_ROOT = [
    "setpriv",
    f"--bounding-set=-all,{DEFAULT_CAPABILITIES}",
    f"--inh-caps=-all,{DEFAULT_CAPABILITIES}",
]


def assert_steered(straw: Straw, ip: str = V4, port: int = 80) -> None:
    arrival = Arrival.take(straw.outbound)
    arrival.sock.close()
    assert (arrival.local.port, arrival.original) == (15001, Endpoint(ip, port))


@pytest.mark.parametrize("ip", [V4, V6])
@pytest.mark.parametrize("mark", ISTIO_MARKS)
@pytest.mark.parametrize("capability", ["net_raw", "net_admin"])
def test_a_mark_exempts_nobody(straw: Straw, pod: Namespace, capability: str, mark: int, ip: str) -> None:
    dial_from(pod, *with_capabilities(capability), ip=ip, mark=mark)
    assert_steered(straw, ip)


@pytest.mark.parametrize("mark", ISTIO_MARKS)
def test_a_mark_opens_no_way_in(straw: Straw, pod: Namespace, peer: Namespace, mark: int) -> None:
    with pod.listen(8080), peer.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, 36, mark)
        client.connect((pod.ip4, 8080))
        Arrival.take(straw.plaintext).sock.close()


def test_children_and_their_programs_are_steered(straw: Straw, pod: Namespace) -> None:
    dial_from(pod, "sh", "-c", '"$@"', "sh", forks=2)
    assert_steered(straw)


def test_a_device_is_no_way_out(straw: Straw, pod: Namespace) -> None:
    dial_from(pod, *with_capabilities(), device="eth0")
    assert_steered(straw)


def test_the_device_lo_is_no_way_out(straw: Straw, pod: Namespace) -> None:
    """Over lo nothing answers for the pod's address on eth0: the connect fails, and nobody heard of it."""
    with pytest.raises(subprocess.CalledProcessError):
        dial_from(pod, *with_capabilities(), device="lo", wait=0.5)
    straw.outbound.setblocking(False)
    with pytest.raises(BlockingIOError):
        straw.outbound.accept()


@contextmanager
def cgroup(*names: str) -> Iterator[Path]:
    """Make a cgroup of a test, of any depth; gone when its processes are."""
    folder = root_cgroup() / f"{PREFIX}bypass"
    made = [folder, *(folder.joinpath(*names[: count + 1]) for count in range(len(names)))]
    for path in made:
        path.mkdir()
    try:
        yield made[-1]
    finally:
        for path in reversed(made):
            path.rmdir()


@pytest.mark.parametrize("depth", [(), ("inner", "most")])
def test_another_cgroup_is_no_way_out(straw: Straw, pod: Namespace, depth: tuple[str, ...]) -> None:
    """Wherever the process was born and went, the programs hang at the root of all cgroups."""
    with cgroup(*depth) as folder:
        move = f'echo $$ > {folder}/cgroup.procs && exec "$@"'
        dial_from(pod, "sh", "-c", move, "sh")
        assert_steered(straw)


def test_a_socket_made_before_its_process_moved_is_steered(straw: Straw, pod: Namespace) -> None:
    code = """
import json, os, socket, sys
sock = socket.socket()
with open(json.loads(sys.argv[1]), "w") as procs:
    procs.write(str(os.getpid()))
sock.settimeout(5)
sock.connect(("203.0.113.9", 80))
"""
    with cgroup() as folder:
        run_in(pod, code, str(folder / "cgroup.procs"))
        assert_steered(straw)


def test_a_cgroup_namespace_is_no_way_out(straw: Straw, pod: Namespace) -> None:
    dial_from(pod, "unshare", "--cgroup", "--mount", "--pid", "--fork", "--user", "--map-root-user")
    assert_steered(straw)


HIDE_PINS = 'umount -l /sys/fs/bpf && exec "$@"'
"""A container has its own mounts, and a bpffs that it mounts itself is an empty one."""
CLAIM = """
import ctypes, errno, json, os, struct, sys
path, number = json.loads(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
def bpf(command, attr):
    buffer = ctypes.create_string_buffer(attr.ljust(128, b"\\0"), 128)
    return ctypes.get_errno() if libc.syscall(321, command, buffer, 128) < 0 else 0
text = ctypes.create_string_buffer(path.encode() + b"\\0")
by_path = bpf(7, struct.pack("=QII", ctypes.addressof(text), 0, 0))
by_number = bpf(14, struct.pack("=III", number, 0, 0))
print(json.dumps([by_path, by_number]))
"""


@pytest.mark.parametrize(
    ("prefix", "by_path"),
    [
        (["unshare", "--mount", "sh", "-c", HIDE_PINS, "sh", *CONTAINER_ROOT], errno.ENOENT),
        (with_capabilities("net_raw", "net_admin", "sys_ptrace"), errno.EACCES),
    ],
    ids=["root of a container", "network administrator"],
)
def test_nobody_can_exempt_a_socket_of_his(
    steering: Steering, straw: Straw, pod: Namespace, prefix: list[str], by_path: int
) -> None:
    """Writing zp_exempt takes its descriptor: by its pin, root's and in no container, or by number,
    with CAP_SYS_ADMIN.
    """
    pin = PIN_ROOT / f"{PREFIX}bpf" / "maps" / "zp_exempt"
    assert pin.stat().st_mode & 0o077 == 0
    number = map_number(pin)
    assert json.loads(run_in(pod, CLAIM, [str(pin), number], *prefix)) == [by_path, errno.EPERM]
    dial_from(pod, *prefix)
    assert_steered(straw)


def map_number(pin: Path) -> int:
    from zproxy.steering.info import map_info
    from zproxy.steering.syscall import obj_get

    fd = obj_get(pin)
    try:
        return map_info(fd).id
    finally:
        os.close(fd)


HOST_DIAL = """
import ctypes, json, os, socket, sys
path, ip, port = json.loads(sys.argv[1])
fd = os.open(path, os.O_RDONLY)
assert ctypes.CDLL(None, use_errno=True).setns(fd, 0x40000000) == 0
sock = socket.create_connection((ip, port), 5)
print(json.dumps(sock.getsockname()[:2]))
"""


def test_a_process_that_left_for_another_namespace_is_no_longer_the_pod_s(
    steering: Steering, straw: Straw, pod: Namespace, peer: Namespace
) -> None:
    """It takes CAP_SYS_ADMIN there. Its connections are that namespace's: not steered, so no straw speaks for
    them, and none has the pod's address.
    """
    before = steering.stats()
    with peer.listen(9100) as server:
        own = json.loads(run_in(pod, HOST_DIAL, [peer.netns.path, peer.ip4, 9100]))
        arrival = Arrival.take(server)
        arrival.sock.close()
    assert own[0] == arrival.peer.ip == peer.ip4
    assert steering.stats() == before


def test_from_another_namespace_the_pod_is_met_as_by_any_stranger(
    straw: Straw, pod: Namespace, peer: Namespace
) -> None:
    with pod.listen(8080):
        run_in(pod, HOST_DIAL, [peer.netns.path, pod.ip4, 8080])
        arrival = Arrival.take(straw.plaintext)
        arrival.sock.close()
    assert arrival.peer.ip == peer.ip4


def test_leaving_takes_a_right_that_containers_do_not_have(pod: Namespace, peer: Namespace) -> None:
    with peer.listen(9101), pytest.raises(subprocess.CalledProcessError):
        run_in(pod, HOST_DIAL, [peer.netns.path, peer.ip4, 9101], *CONTAINER_ROOT)


OUTSIDER = """
import array, json, socket, sys
channel = socket.socket(fileno=0)
_, ancillary, _, _ = channel.recvmsg(1, socket.CMSG_SPACE(4))
passed = array.array("i", ancillary[0][2])[0]
sock = socket.socket(fileno=passed)
sock.settimeout(5)
ip, port = json.loads(sys.argv[1])
sock.connect((ip, port))
channel.send(b"!")
"""


def connect_by_another(sock: socket.socket, place: Namespace, ip: str, port: int) -> None:
    """Pass `sock` to a process in the namespace `place`, which connects it."""
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    command = ["ip", "netns", "exec", place.name, sys.executable, "-c", OUTSIDER, json.dumps([ip, port])]
    with ours, theirs, subprocess.Popen(command, stdin=theirs.fileno()) as process:
        ours.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [sock.fileno()]))])
        try:
            assert ours.recv(1) == b"!"
        finally:
            process.send_signal(signal.SIGKILL)


def test_a_socket_of_the_pod_in_an_outsider_s_hands_is_steered(
    straw: Straw, pod: Namespace, peer: Namespace
) -> None:
    with pod.socket() as sock:
        connect_by_another(sock, peer, V4, 80)
        assert_steered(straw)


def test_a_socket_of_the_pod_from_before_enrolment_in_an_outsider_s_hands_is_steered(
    steering: Steering, pod: Namespace, peer: Namespace
) -> None:
    with pod.socket() as sock, attached(steering, pod) as straw:
        connect_by_another(sock, peer, V4, 80)
        assert_steered(straw)


def test_a_socket_of_an_outsider_in_the_pod_s_hands_is_the_outsider_s(
    steering: Steering, straw: Straw, pod: Namespace, peer: Namespace
) -> None:
    """A socket stays in the namespace that it was made in: it has the outsider's address, and no identity."""
    before = steering.stats()
    with peer.listen(9102) as server, peer.socket() as sock:
        connect_by_another(sock, pod, peer.ip4, 9102)
        arrival = Arrival.take(server)
        arrival.sock.close()
    assert arrival.peer.ip == peer.ip4
    assert steering.stats() == before


def test_the_straw_s_listeners_cannot_be_shared(steering: Steering, pod: Namespace, peer: Namespace) -> None:
    """With every option that shares a port, to the same uid 0, on every address that overlaps."""
    from zproxy.net.sockets import SocketFactory

    ports = (15001, 15006, 15008, 15053)
    with Netns.named(pod.name) as handle:
        factory = SocketFactory(handle, steering.exempt)
        listeners = [factory.listen(port, 16) for port in ports]
        try:
            for port in ports:
                for ip in ("::", "0.0.0.0", pod.ip4, pod.ip6, "127.0.0.1", "::1", f"::ffff:{pod.ip4}"):
                    assert share(pod, ip, port) == errno.EADDRINUSE, (ip, port)
                    assert share(pod, ip, port, device=b"eth0") in REFUSED, (ip, port)
        finally:
            for listener in listeners:
                listener.close()


REFUSED = (errno.EADDRINUSE, errno.EADDRNOTAVAIL)


def share(pod: Namespace, ip: str, port: int, device: bytes = b"") -> int:
    """Try to listen beside somebody; return the errno, 0 when it worked."""
    with pod.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET) as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if thief.family == socket.AF_INET6 and not ip.startswith("::ffff:"):
            thief.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if device:
            thief.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
        try:
            thief.bind((ip, port))
            thief.listen()
        except OSError as error:
            return error.errno or -1
    return 0


@pytest.mark.parametrize("port", [15001, 15006, 15008, 15053])
def test_a_port_that_was_bound_before_enrolment_cannot_be_listened_on_afterwards(
    steering: Steering, pod: Namespace, port: int
) -> None:
    """Bound and not yet listening it does not stop the straw; then it is too late to listen."""
    from zproxy.net.sockets import SocketFactory

    with pod.socket() as thief, Netns.named(pod.name) as handle:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thief.bind((pod.ip4, port))
        with SocketFactory(handle, steering.exempt).listen(port, 16), pytest.raises(OSError, match="in use"):
            thief.listen()


def test_a_hand_over_cannot_be_forged_by_a_source_port(straw: Straw, pod: Namespace) -> None:
    """Who dials 15001 from a port that a steered connection had finds nothing of it."""
    before = size_of("zp_tuple")
    with pod.socket() as app:
        app.bind((pod.ip4, 40700))
        app.connect((V4, 80))
        assert_steered(straw)
    with pod.socket() as app:
        app.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        app.bind((pod.ip4, 40701))
        app.connect((pod.ip4, 15001))
        arrival = Arrival.take(straw.outbound)
        arrival.sock.close()
    assert arrival.original is None
    assert size_of("zp_tuple") == before


def test_a_connected_socket_stays_where_it_is(straw: Straw, pod: Namespace) -> None:
    """Another connect() on it says EISCONN; a hook that ran before would have changed what it shows."""
    with pod.socket() as app:
        app.setblocking(True)  # with a timeout the first of these would only end the former connect
        app.connect((V4, 80))
        with Arrival.take(straw.outbound).sock as proxy:
            assert app.connect_ex(("198.51.100.7", 81)) == errno.EISCONN
            app.sendall(b"same")
            assert proxy.recv(16) == b"same"
            assert app.getpeername() == (V4, 80)
