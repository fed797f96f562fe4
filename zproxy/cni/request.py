"""What a runtime asks of the plugin: environment and configuration, read and judged (CNI spec 1.1.0).

Versions from 0.3.1 on: before that, plugins were not chained.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, NoReturn

from zproxy.cni.failure import CniError, Code

VERSIONS: Final = ("0.3.1", "0.4.0", "1.0.0", "1.1.0")
SINCE: Final = {"CHECK": "0.4.0", "STATUS": "1.1.0", "GC": "1.1.0"}
"""Command → the version of the specification that brought it."""
NEEDED: Final = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
    "GC": (),
    "STATUS": (),
}
"""Command → environment variables without which it cannot be done."""
TIMEOUT_MS: Final = 10_000
"""Some hundred times what enrolment takes; kubelet gives a sandbox up after minutes."""
_CONTAINER: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_NODE: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


class Settings(NamedTuple):
    """The plugin's own keys in the network's configuration."""

    node: str
    """Which node's daemon is asked."""
    fail_open: bool = False
    """Whether a pod that cannot be enrolled may start outside the mesh."""
    wait_ms: int = 0
    """How long the mesh may take to learn of a pod that is born."""
    timeout_ms: int = TIMEOUT_MS
    """How long the daemon may take, beside that."""


class Request(NamedTuple):
    """One call of the plugin."""

    command: str
    version: str
    settings: Settings
    network: str
    container: str = ""
    interface: str = ""
    netns: str = ""
    pod: str = ""
    """`namespace/name`; empty where the runtime names none, since it knows no pods."""
    result: dict[str, Any] | None = None
    """What the plugins before this one made: `prevResult`."""
    valid: tuple[str, ...] = ()
    """GC: the attachments that there are."""

    @property
    def attachment(self) -> str:
        """By which the daemon knows this sandbox of the pod."""
        return f"{self.network}/{self.container}/{self.interface}"

    @property
    def ips(self) -> list[str]:
        """Addresses of the pod's own interfaces, without their prefix lengths."""
        return _ips(self.result or {})


def read(environment: Mapping[str, str], text: bytes) -> Request:
    """Read a request for anything but VERSION; raise CniError for what it should not be."""
    command = environment.get("CNI_COMMAND", "")
    if command not in NEEDED:
        raise CniError(Code.ENVIRONMENT, f"CNI_COMMAND {command!r} is none that this plugin knows")
    conf = _object(text)
    version = _version(conf, command)
    _check_environment(command, environment)
    result = conf.get("prevResult")
    if command in ("ADD", "CHECK") and not isinstance(result, dict):
        _fault(conf, "prevResult", "zproxy-cni makes no interfaces: chain it behind a plugin that does")
    request = Request(
        command,
        version,
        _settings(conf),
        _network(conf),
        environment.get("CNI_CONTAINERID", ""),
        environment.get("CNI_IFNAME", ""),
        environment.get("CNI_NETNS", ""),
        _pod(environment.get("CNI_ARGS", "")),
        result if isinstance(result, dict) else None,
    )
    return request._replace(valid=_valid(conf, request.network)) if command == "GC" else request


def version_of(text: bytes) -> str:
    """Return the version that a configuration asks for, the newest where it does not say: for VERSION."""
    try:
        conf = _object(text)
    except CniError:
        return VERSIONS[-1]
    return str(conf.get("cniVersion") or VERSIONS[-1])


def _object(text: bytes) -> dict[str, Any]:
    try:
        conf = json.loads(text)
    except ValueError as error:
        raise CniError(Code.DECODE, "the configuration on stdin is no JSON", str(error)) from error
    if not isinstance(conf, dict):
        raise CniError(Code.DECODE, "the configuration on stdin is no JSON object")
    return conf


def _version(conf: dict[str, Any], command: str) -> str:
    version = conf.get("cniVersion", "0.1.0")  # what its absence has always meant
    if version not in VERSIONS:
        supported = ", ".join(VERSIONS)
        raise CniError(Code.VERSION, f"CNI version {version!r} is not supported", f"supported: {supported}")
    if VERSIONS.index(version) < VERSIONS.index(SINCE.get(command, VERSIONS[0])):
        raise CniError(Code.VERSION, f"CNI version {version} has no {command}")
    return str(version)


def _check_environment(command: str, environment: Mapping[str, str]) -> None:
    missing = [name for name in NEEDED[command] if not environment.get(name)]
    if missing:
        raise CniError(Code.ENVIRONMENT, f"{', '.join(missing)} missing, which {command} needs")
    container = environment.get("CNI_CONTAINERID", "")
    if container and not _CONTAINER.fullmatch(container):
        raise CniError(Code.ENVIRONMENT, f"CNI_CONTAINERID {container!r} is no container's")


def _network(conf: dict[str, Any]) -> str:
    name = conf.get("name")
    if not isinstance(name, str) or not name or "/" in name:
        _fault(conf, "name", "it is the network's name")
    return name


def _settings(conf: dict[str, Any]) -> Settings:
    node = conf.get("node")
    if not isinstance(node, str) or not _NODE.fullmatch(node):
        _fault(conf, "node", "it is the node of the daemon, as in `zproxy run --node`")
    fail_open = conf.get("failOpen", False)
    if not isinstance(fail_open, bool):
        _fault(conf, "failOpen", "it is true or false")
    return Settings(
        node, fail_open, _milliseconds(conf, "waitMs", 0), _milliseconds(conf, "timeoutMs", TIMEOUT_MS)
    )


def _milliseconds(conf: dict[str, Any], key: str, default: int) -> int:
    value = conf.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        _fault(conf, key, "it is a whole number of milliseconds")
    return value


def _fault(conf: dict[str, Any], key: str, what: str) -> NoReturn:
    raise CniError(Code.CONFIG, f"{key} is {json.dumps(conf.get(key))[:200]}: {what}")


def _pod(arguments: str) -> str:
    pairs = dict(pair.partition("=")[::2] for pair in arguments.split(";"))
    namespace, name = pairs.get("K8S_POD_NAMESPACE", ""), pairs.get("K8S_POD_NAME", "")
    return f"{namespace}/{name}" if namespace and name else ""


def _ips(result: dict[str, Any]) -> list[str]:
    """One on an interface that is outside the sandbox, a bridge's for instance, is not the pod's."""
    interfaces = result.get("interfaces") or []
    found = []
    try:
        for each in result.get("ips") or []:
            number = each.get("interface")
            if number is None or interfaces[number].get("sandbox"):
                found.append(str(each["address"]).partition("/")[0])
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise CniError(Code.CONFIG, f"prevResult is no result: {error!r}") from error
    return found


def _valid(conf: dict[str, Any], network: str) -> tuple[str, ...]:
    """Without the list nothing is known to be stale, and so there is no GC without it."""
    key = "cni.dev/valid-attachments"
    listed = conf.get(key)
    try:
        if isinstance(listed, list):
            return tuple(f"{network}/{each['containerID']}/{each['ifname']}" for each in listed)
    except (KeyError, TypeError):
        pass
    _fault(conf, key, "it is the list of what is still there")
