"""Calls to the API server, by kubernetes-asyncio: its configuration, credentials and connections.

Imported only when Kubernetes is asked for: the library takes some forty megabytes.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import aiohttp
from kubernetes_asyncio.client import ApiClient, Configuration
from kubernetes_asyncio.config import ConfigException, load_incluster_config, load_kube_config

from zproxy import __version__
from zproxy.errors import ConfigError
from zproxy.kube.informer import ApiFailed, NotThere
from zproxy.kube.ledger import GONE, Expired

CONNECT_S: Final = 10.0
ANSWER_S: Final = 60.0
"""For a whole page, or a patch."""
QUIET_S: Final = 90.0
"""A watch that brings nothing for this long is begun anew where it was. A server sends a bookmark about every
minute, so that a connection whose other end has vanished is found out."""
MAX_PAGE: Final = 64 << 20
"""Bytes."""
CHUNK: Final = 64 << 10
_ANSWER: Final = aiohttp.ClientTimeout(total=ANSWER_S, sock_connect=CONNECT_S)
_METADATA: Final = "application/json;as=PartialObjectMetadata{};g=meta.k8s.io;v=v1,application/json"
_MERGE: Final = "application/merge-patch+json"


class KubeApi:
    """One API server. Credentials that it does not accept any more are read again: they are rotated."""

    def __init__(self, kubeconfig: Path | None = None) -> None:
        """Use the file `kubeconfig`, or without one what every pod of a cluster is given."""
        self._kubeconfig = kubeconfig
        self._client: ApiClient | None = None
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        """Read the configuration, and connect to nobody yet; raise ConfigError."""
        try:
            await self._opened()
        except ConfigException as error:
            where = self._kubeconfig or "what a pod of a cluster is given"
            remedy = "" if self._kubeconfig else "; outside a cluster name a file with --kubeconfig"
            raise ConfigError(f"no way to the API server from {where}: {error}{remedy}") from error

    async def close(self) -> None:
        """End all connections."""
        if self._client is not None:
            await self._drop(self._client)

    async def get(self, path: str, query: Mapping[str, str], *, only_metadata: bool = False) -> bytes:
        """Return the body of an answer; raise ApiFailed or Expired."""
        headers = {"Accept": _accept(only_metadata, "List")}
        async with self._request("GET", path, query, headers, _ANSWER) as response:
            return await _body(response)

    async def watch(
        self, path: str, query: Mapping[str, str], *, only_metadata: bool = False
    ) -> AsyncGenerator[bytes, None]:
        """Yield chunks until the server ends it or is silent for QUIET_S; raise ApiFailed or Expired."""
        headers = {"Accept": _accept(only_metadata, "")}
        limits = aiohttp.ClientTimeout(sock_connect=CONNECT_S, sock_read=QUIET_S)
        async with self._request("GET", path, query, headers, limits) as response:
            with suppress(aiohttp.SocketTimeoutError):
                async for chunk in response.content.iter_chunked(CHUNK):
                    yield chunk

    async def patch(self, path: str, body: Mapping[str, Any]) -> None:
        """Merge `body` into the object at `path` (RFC 7386); raise NotThere or ApiFailed."""
        headers = {"Accept": "application/json", "Content-Type": _MERGE}
        async with self._request("PATCH", path, {}, headers, _ANSWER, body) as response:
            await _body(response)

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: dict[str, str],
        limits: aiohttp.ClientTimeout,
        body: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        client = None
        try:
            client = await self._opened()
            response = await client.call_api(
                path,
                method,
                query_params=list(query.items()),
                header_params=headers,
                body=body and dict(body),
                auth_settings=["BearerToken"],
                _preload_content=False,
                _request_timeout=limits,
            )
            async with response:
                try:
                    await _check(response)
                finally:
                    if response.status == 401:
                        await self._drop(client)
                yield response
        except aiohttp.ClientConnectorCertificateError as error:  # the cluster's CA may have been renewed
            if client is not None:
                await self._drop(client)
            why = error.certificate_error
            raise ApiFailed(f"the API server's certificate is not trusted: {why}") from error
        except (aiohttp.ClientError, ConfigException, OSError, ValueError) as error:
            what = str(error) or type(error).__name__
            raise ApiFailed(f"the API server cannot be reached: {what[:200]}") from error

    async def _opened(self) -> ApiClient:
        async with self._opening:
            if self._client is None:
                try:
                    self._client = await _client(self._kubeconfig)
                except ConfigException:
                    raise
                except Exception as error:  # the library trips over what is not shaped as it expects
                    raise ConfigException(f"{type(error).__name__}: {error}") from error
            return self._client

    async def _drop(self, client: ApiClient) -> None:
        """Have the next request begin with the configuration, unless that has happened already."""
        if self._client is client:
            self._client = None
            await client.close()


async def _client(kubeconfig: Path | None) -> ApiClient:
    configuration = Configuration()
    if kubeconfig is None:
        load_incluster_config(configuration)  # type: ignore[no-untyped-call] # the library's
    else:
        _check_is_file(kubeconfig)
        await load_kube_config(str(kubeconfig), client_configuration=configuration, persist_config=False)
    client = ApiClient(configuration)
    client.user_agent = f"zproxy/{__version__}"
    return client


def _check_is_file(path: Path) -> None:
    if not path.is_file():
        raise ConfigException("there is no such file")


def _accept(only_metadata: bool, suffix: str) -> str:
    return _METADATA.format(suffix) if only_metadata else "application/json"


async def _check(response: aiohttp.ClientResponse) -> None:
    """Raise what the status stands for, unless it is a good one."""
    status = response.status
    if status < 300:
        return
    said = f"{status} {await _message(response)}"
    if status == GONE:
        raise Expired(said)
    if response.method == "PATCH" and status in {404, 409}:
        raise NotThere(said)
    hint = "; docs/kubernetes.md lists the rights that are needed" if status == 403 else ""
    raise ApiFailed(f"the API server says {said}{hint}", _seconds(response.headers.get("Retry-After", "")))


async def _message(response: aiohttp.ClientResponse) -> str:
    """Return the sentence of a Status object, or what HTTP calls the status."""
    try:
        text = (await response.content.read(CHUNK)).decode()
        return str(json.loads(text)["message"])[:200]
    except (aiohttp.ClientError, ValueError, KeyError, TypeError):
        return response.reason or ""


async def _body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(CHUNK):
        body += chunk
        if len(body) > MAX_PAGE:
            raise ApiFailed(f"an answer of more than {MAX_PAGE >> 20} MiB")
    return bytes(body)


def _seconds(text: str) -> float:
    return float(text) if text.isascii() and text.isdigit() else 0.0
