"""An API server of Kubernetes for tests: lists with pages, watches, bookmarks, "gone", TLS, tokens, faults.

It speaks the protocol of Kubernetes' API concepts over real HTTP, from a thread of its own. Objects are plain
JSON; whoever changes them may do it from any thread.
"""

import asyncio
import copy
import datetime
import json
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Object = dict[str, Any]
PATHS = {
    "pods": "/api/v1/pods",
    "namespaces": "/api/v1/namespaces",
    "nodes": "/api/v1/nodes",
    "services": "/api/v1/services",
    "endpointslices": "/apis/discovery.k8s.io/v1/endpointslices",
}
BOOKMARK_EVERY = 10
"""Changes of any kind: a watch whose own objects did not change gets a bookmark as often."""


class Fault(Enum):
    """What becomes of the next request, once."""

    NONE = "nothing"
    GONE = "410 instead of an answer"
    GONE_EVENT = "a watch says 410 in an event"
    ERROR_EVENT = "a watch says 500 in an event"
    BROKEN = "500 instead of an answer"
    BUSY = "429 and Retry-After instead of an answer"
    FORBIDDEN = "403 instead of an answer"
    GARBAGE = "an answer that is no JSON"
    TORN = "a watch breaks off in the middle of its first event"
    EMPTY = "a watch ends at once"


class Event(NamedTuple):
    """One change."""

    version: int
    kind: str
    type: str
    item: Object


class ApiServer:
    """Made and started by `api_server`."""

    def __init__(self, directory: Path | None = None, token: str = "") -> None:
        """With a directory it speaks TLS, and puts its certificate there."""
        self.token = token
        self.directory = directory
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        """Method, path and query."""
        self.accepts: list[str] = []
        """What was asked for in each of them but patches."""
        self.agents: list[str] = []
        self.patches: list[tuple[str, Object]] = []
        self.faults: dict[str, deque[Fault]] = {"list": deque(), "watch": deque(), "patch": deque()}
        self.chunk = 0
        """Bytes of a watch that are sent at a time; 0 sends whole events."""
        self.watch_s: float | None = None
        """Ends every watch after this, instead of after what the client asks for."""
        self.bookmarks = True
        self._objects: dict[str, dict[str, Object]] = {kind: {} for kind in PATHS}
        self._version = 100
        self._events: list[Event] = []
        self._compacted = self._version
        self._lists: dict[str, tuple[list[Object], int]] = {}
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._news: asyncio.Event = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._port = 0
        self.watching = 0
        """Watches that are open."""

    # What tests do

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http{'s' if self.directory else ''}://127.0.0.1:{self._port}"

    @property
    def version(self) -> int:
        """Of the latest change."""
        return self._version

    def put(self, kind: str, item: Object) -> None:
        """Add an object, or change it."""
        with self._lock:
            self._put(kind, copy.deepcopy(item))
        self._tell()

    def delete(self, kind: str, key: str) -> None:
        """Take an object away, by `namespace/name` or name."""
        with self._lock:
            self._note(kind, "DELETED", copy.deepcopy(self._objects[kind].pop(key)))
        self._tell()

    def get(self, kind: str, key: str) -> Object:
        """Return a copy of an object."""
        with self._lock:
            return copy.deepcopy(self._objects[kind][key])

    def compact(self) -> None:
        """Forget all former versions, as etcd does every five minutes."""
        with self._lock:
            self._events.clear()
            self._compacted = self._version
            self._lists.clear()

    def compact_to(self, version: int) -> None:
        """Forget the versions before this one."""
        with self._lock:
            self._events = [each for each in self._events if each.version > version]
            self._compacted = version

    def break_next(self, request: str, *faults: Fault) -> None:
        """Have the next requests of this kind (`list`, `watch`, `patch`) fail."""
        self.faults[request].extend(faults)

    def drop(self) -> None:
        """End every connection in the middle of whatever it does, and go away until `start`."""
        self._call(self._stop())

    def start(self) -> None:
        """Listen, at the same port as before."""
        if not self._thread.is_alive():
            self._thread.start()
        self._call(self._listen())

    def close(self) -> None:
        """End for good."""
        self.drop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def kubeconfig(self, path: Path) -> Path:
        """Write the file that leads here."""
        cluster: dict[str, str] = {"server": self.url}
        if self.directory:
            cluster["certificate-authority"] = str(self.directory / "api.crt")
        user = {"token": self.token} if self.token else {}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
        path.write_text(json.dumps(config))
        return path

    def count(self, kind: str, *, watches: bool) -> int:
        """Return how many lists, or watches, of a kind were asked for; each page is one."""
        return sum(
            path == PATHS[kind] and ("watch" in query) is watches for _, path, query in list(self.requests)
        )

    # The server's side

    def _put(self, kind: str, item: Object) -> None:
        metadata = item["metadata"]
        key = "/".join(filter(None, (metadata.get("namespace"), metadata["name"])))
        event = "MODIFIED" if key in self._objects[kind] else "ADDED"
        self._objects[kind][key] = item
        self._note(kind, event, item)

    def _note(self, kind: str, event: str, item: Object) -> None:
        self._version += 1
        item["metadata"]["resourceVersion"] = str(self._version)
        self._events.append(Event(self._version, kind, event, item))

    def _tell(self) -> None:
        self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _call(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        application = web.Application()
        for kind, path in PATHS.items():
            application.router.add_get(path, self._handler(kind))
        application.router.add_patch("/api/v1/namespaces/{namespace}/pods/{name}/status", self._patch)
        self._runner = web.AppRunner(
            application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True
        )
        await self._runner.setup()
        context = server_context(self.directory) if self.directory else None
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, ssl_context=context, reuse_address=True)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def _stop(self) -> None:
        if self._runner is not None:
            runner, self._runner = self._runner, None
            for connection in list(runner.server.connections if runner.server else ()):
                if connection.transport is not None:
                    connection.transport.abort()
            await runner.cleanup()

    def _handler(self, kind: str) -> Callable[[web.Request], Any]:
        async def handle(request: web.Request) -> web.StreamResponse:
            query = dict(request.query)
            self.requests.append((request.method, request.path, query))
            self.agents.append(request.headers.get("User-Agent", ""))
            self.accepts.append(request.headers.get("Accept", ""))
            if self.token and request.headers.get("authorization") != f"Bearer {self.token}":
                return _status(401, "Unauthorized")
            what = "watch" if "watch" in query else "list"
            fault = self.faults[what].popleft() if self.faults[what] else None
            if fault is not None and (answer := _answer(fault)) is not None:
                return answer
            if what == "watch":
                return await self._watch(kind, request, fault)
            return self._list(kind, query)

        return handle

    def _list(self, kind: str, query: dict[str, str]) -> web.Response:
        limit, token = int(query.get("limit", 0)), query.get("continue", "")
        with self._lock:
            if token and token.partition(":")[0] not in self._lists:
                return _status(410, "The provided continue parameter is too old")
            name, _, start = token.partition(":") if token else (str(len(self._lists)), "", "0")
            if not token:  # objects are replaced, and never changed
                self._lists[name] = list(self._objects[kind].values()), self._version
            items, version = self._lists[name]
        begin = int(start)
        page = items[begin : begin + limit] if limit else items
        more = f"{name}:{begin + limit}" if limit and begin + limit < len(items) else ""
        metadata = {"resourceVersion": str(version)} | ({"continue": more} if more else {})
        return web.json_response({"kind": "List", "metadata": metadata, "items": page})

    async def _watch(self, kind: str, request: web.Request, fault: Fault | None) -> web.StreamResponse:
        since = int(request.query["resourceVersion"])
        if since < self._compacted:
            return _status(410, "too old resource version")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        ends = self._loop.time() + (self.watch_s or float(request.query["timeoutSeconds"]))
        self.watching += 1
        try:
            with suppress(ConnectionError):
                await self._events_to(response, kind, since, ends, fault)
        finally:
            self.watching -= 1
        return response

    async def _events_to(
        self, response: web.StreamResponse, kind: str, since: int, ends: float, fault: Fault | None
    ) -> None:
        if fault is Fault.EMPTY:
            return
        if fault in {Fault.GONE_EVENT, Fault.ERROR_EVENT}:
            code = 410 if fault is Fault.GONE_EVENT else 500
            await self._send(response, "ERROR", {"kind": "Status", "code": code, "message": fault.value})
            return
        told = since
        while self._loop.time() < ends:
            news = self._news
            with self._lock:
                fresh = [each for each in self._events if each.version > since]
            for each in fresh:
                since = each.version
                if each.kind == kind:
                    if fault is Fault.TORN:
                        await response.write(_line(each.type, each.item)[:40])
                        assert response._req is not None
                        assert response._req.transport is not None
                        response._req.transport.abort()
                        return
                    await self._send(response, each.type, each.item)
                    told = since
            if self.bookmarks and since - told >= BOOKMARK_EVERY:
                told = since
                bookmark = {"kind": "Bookmark", "metadata": {"resourceVersion": str(since)}}
                await self._send(response, "BOOKMARK", bookmark)
            with suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), max(0.0, min(ends - self._loop.time(), 1.0)))

    async def _send(self, response: web.StreamResponse, kind: str, item: Object) -> None:
        line = _line(kind, item)
        size = self.chunk or len(line)
        for start in range(0, len(line), size):
            await response.write(line[start : start + size])
            await asyncio.sleep(0)

    async def _patch(self, request: web.Request) -> web.Response:
        key = f"{request.match_info['namespace']}/{request.match_info['name']}"
        body = await request.json()
        self.requests.append((request.method, request.path, dict(request.query)))
        if self.faults["patch"] and (answer := _answer(self.faults["patch"].popleft())) is not None:
            return answer
        if request.headers["Content-Type"] != "application/merge-patch+json":
            return _status(415, "the body of the request was in an unknown format")
        with self._lock:
            item = copy.deepcopy(self._objects["pods"].get(key))
            if item is None:
                return _status(404, f"pods {key} not found")
            if body["metadata"].get("uid", item["metadata"]["uid"]) != item["metadata"]["uid"]:
                return _status(409, "Precondition failed: UID in precondition differs")
            changed = merged(item, body)
            if changed != self._objects["pods"][key]:
                self._put("pods", changed)
        self.patches.append((key, body))
        self._tell()
        return web.json_response(changed)


@contextmanager
def api_server(directory: Path | None = None, token: str = "") -> Iterator[ApiServer]:
    """Start one, and end it afterwards."""
    server = ApiServer(directory, token)
    server.start()
    try:
        yield server
    finally:
        server.close()


def merged(target: Any, patch: Any) -> Any:
    """Return what RFC 7386 makes of `target`."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def _answer(fault: Fault) -> web.Response | None:
    """Return the answer that a fault stands for; None where it concerns what is in one."""
    return {
        Fault.GONE: lambda: _status(410, fault.value),
        Fault.BROKEN: lambda: _status(500, fault.value),
        Fault.BUSY: lambda: _status(429, fault.value, {"Retry-After": "1"}),
        Fault.FORBIDDEN: lambda: _status(403, fault.value),
        Fault.GARBAGE: lambda: web.Response(text="<html>a captive portal</html>\n"),
    }.get(fault, lambda: None)()


def _status(code: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    body = {"kind": "Status", "status": "Failure", "code": code, "message": message}
    return web.json_response(body, status=code, headers=headers)


def _line(kind: str, item: Object) -> bytes:
    return json.dumps({"type": kind, "object": item}).encode() + b"\n"


def server_context(directory: Path) -> ssl.SSLContext:
    """Return a context with a certificate for 127.0.0.1 that is its own CA, in `directory`."""
    certificate, key = directory / "api.crt", directory / "api.key"
    if not certificate.exists():
        _make_certificate(certificate, key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def _make_certificate(certificate: Path, key: Path) -> None:
    import ipaddress

    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])
    now = datetime.datetime.now(datetime.UTC)
    identifier = x509.SubjectKeyIdentifier.from_public_key(private.public_key())
    made = (
        x509.CertificateBuilder(name, name, private.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(identifier, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
        )
        .sign(private, hashes.SHA256())
    )
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
