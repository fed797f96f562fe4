"""The control socket: one JSON object per line in, one out. Root only, by its file mode.

Request {"version":1,"command":"pods","arguments":{...}}; answer {"version":1,"result":...} or
{"version":1,"error":"one sentence"}.
"""

import asyncio
import inspect
import json
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from zproxy.errors import ZproxyError
from zproxy.net.tasks import spawn

VERSION: Final = 1
MAX_LINE: Final = 64 << 10
"""Of a request; answers are as long as they are."""
IDLE_S: Final = 60.0
MAX_CLIENTS: Final = 64

Command = Callable[..., Any | Awaitable[Any]]
_log = logging.getLogger("zproxy.control")


class ControlServer:
    """Serves the commands that the composition root registered."""

    def __init__(self, path: Path, commands: dict[str, Command]) -> None:
        self._path = path
        self._commands = commands
        self._server: asyncio.Server | None = None
        self._clients = 0

    async def start(self) -> None:
        """Listen; the caller holds the node's lock, so a socket file that is there is a dead daemon's."""
        self._path.unlink(missing_ok=True)
        old = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._serve, str(self._path), limit=MAX_LINE)
        finally:
            os.umask(old)

    async def close(self) -> None:
        """Stop listening and remove the socket file."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients += 1
        try:
            if self._clients <= MAX_CLIENTS:
                await self._answer_all(reader, writer)
            else:
                await _send(writer, {"error": f"{MAX_CLIENTS} clients are connected already; try again"})
        except (ConnectionError, TimeoutError, ValueError):
            pass  # the client is gone, idle or writes no lines
        finally:
            self._clients -= 1
            writer.close()

    async def _answer_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await asyncio.wait_for(reader.readline(), IDLE_S):
            await _send(writer, await self._answer(line))

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            command, arguments = _parse(line)
            handler = self._commands.get(command)
            if handler is None:
                raise ZproxyError(f"this daemon knows no command {command!r}; is the CLI of another version?")
            result = _bound(command, handler, arguments)()
            if asyncio.iscoroutine(result):
                # A client that goes away must not stop an enrolment half way.
                result = await asyncio.shield(spawn(result, f"control-{command}"))
        except ZproxyError as error:
            return {"error": str(error)}
        except Exception as error:  # reported to the client and logged; the daemon goes on
            _log.exception("control command failed")
            return {"error": f"internal error: {error}; the daemon's log has the details"}
        return {"result": result}


async def _send(writer: asyncio.StreamWriter, answer: dict[str, Any]) -> None:
    writer.write(json.dumps({"version": VERSION} | answer).encode() + b"\n")
    await asyncio.wait_for(writer.drain(), IDLE_S)


def _bound(command: str, handler: Command, arguments: dict[str, Any]) -> Callable[[], Any]:
    """Tell a client's wrong arguments from an error of the handler's own."""
    try:
        bound = inspect.signature(handler).bind(**arguments)
    except TypeError as error:
        raise ZproxyError(f"bad arguments for {command}: {error}") from error
    return lambda: handler(*bound.args, **bound.kwargs)


def _parse(line: bytes) -> tuple[str, dict[str, Any]]:
    try:
        request = json.loads(line)
        version, command, arguments = request["version"], request["command"], request.get("arguments", {})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ZproxyError("not a request: one JSON object per line with version and command") from error
    if version != VERSION:
        raise ZproxyError(
            f"the daemon speaks control protocol {VERSION}, the client {version}; update the older"
        )
    if not isinstance(command, str) or not isinstance(arguments, dict):
        raise ZproxyError("not a request: command is text and arguments is an object")
    return command, arguments
