"""The lab's HTTP app."""

import hashlib
import http.client
import json
import socket
import subprocess
import threading
from collections.abc import Iterator

import pytest

from zproxy.lab import inside
from zproxy.lab.app import DualStackServer, pattern


@pytest.fixture
def server(capsys: pytest.CaptureFixture[str]) -> Iterator[DualStackServer]:
    made = DualStackServer(0)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def _ask(
    server: DualStackServer, method: str, path: str, body: bytes | None = None, host: str = "127.0.0.1"
) -> bytes:
    connection = http.client.HTTPConnection(host, server.server_port, timeout=10)
    try:
        connection.request(method, path, body, {"X-Test": "yes"})
        return connection.getresponse().read()
    finally:
        connection.close()


@pytest.mark.parametrize(("host", "text"), [("127.0.0.1", "127.0.0.1:"), ("::1", "[::1]:")])
def test_get_tells_the_peer_in_its_own_family(server: DualStackServer, host: str, text: str) -> None:
    answer = json.loads(_ask(server, "GET", "/get?marker=1", host=host))
    assert answer["origin"].startswith(text)
    assert answer["url"] == "/get?marker=1"
    assert answer["headers"]["X-Test"] == "yes"


def test_bytes_are_as_many_as_asked_and_predictable(server: DualStackServer) -> None:
    answer = _ask(server, "GET", "/bytes/200001")
    assert len(answer) == 200001
    assert answer == b"".join(pattern(200001))
    assert answer[:300] == (bytes(range(256)) * 2)[:300]


def test_post_tells_length_and_hash(server: DualStackServer) -> None:
    body = bytes(range(251)) * 1000
    answer = json.loads(_ask(server, "POST", "/post", body))
    assert (answer["length"], answer["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())


def test_echo_answers_the_body(server: DualStackServer) -> None:
    body = bytes(range(251)) * 1000
    assert _ask(server, "POST", "/echo", body) == body


@pytest.mark.parametrize("path", ["/nothing", "/bytes/x", f"/bytes/{1 << 60}"])
def test_what_is_not_there_is_said(server: DualStackServer, path: str) -> None:
    assert b"nothing is at" in _ask(server, "GET", path)


def test_a_post_without_a_length_is_refused(server: DualStackServer) -> None:
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as raw:
        raw.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        with raw.makefile("rb") as answer:
            assert answer.read().startswith(b"HTTP/1.1 411")


def test_requests_of_one_connection_are_all_answered(server: DualStackServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    origins = set()
    for _ in range(3):
        connection.request("GET", "/get")
        origins.add(json.loads(connection.getresponse().read())["origin"])
    connection.close()
    assert len(origins) == 1


def test_it_ends_when_its_starter_does() -> None:
    argv = inside.module("zproxy.lab.app", "--port", "0", "--until-stdin-ends")
    with subprocess.Popen(argv, stdin=subprocess.PIPE, env=inside.environment()) as process:
        assert process.stdin is not None
        process.stdin.write(b"what comes is not looked at")
        process.stdin.close()
        assert process.wait(10) == 0
