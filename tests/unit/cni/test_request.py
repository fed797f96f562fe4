"""What a runtime asks for: read as the specification has it, and refused with the right code."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cni import RESULT, configuration, environment
from zproxy.cni.failure import CniError, Code
from zproxy.cni.request import VERSIONS, Settings, read, version_of


def fault(command: str = "ADD", conf: bytes = configuration(), /, **variables: str) -> tuple[Code, str]:
    with pytest.raises(CniError) as caught:
        read(environment(command, **variables), conf)
    return caught.value.code, caught.value.message


def test_an_add_is_read() -> None:
    request = read(environment("ADD"), configuration())
    assert (request.command, request.version, request.settings) == ("ADD", "1.1.0", Settings("node-a"))
    assert (request.pod, request.netns) == ("demo/client", "/run/netns/x")
    assert request.attachment == "net/c1/eth0"
    assert request.result == RESULT


def test_addresses_of_the_pods_own_interfaces_are_taken() -> None:
    assert read(environment("ADD"), configuration()).ips == ["10.1.0.5", "fd00::5"]
    bare = {"ips": [{"address": "10.1.0.9/32"}]}
    assert read(environment("ADD"), configuration(prevResult=bare)).ips == ["10.1.0.9"]
    assert read(environment("ADD"), configuration(prevResult={"ips": None})).ips == []


@pytest.mark.parametrize(
    "ips", [[{"address": "10.1.0.9/32", "interface": 7}], [{}], ["10.1.0.9"], 5, [{"interface": "x"}]]
)
def test_a_result_that_is_none_is_refused(ips: Any) -> None:
    request = read(environment("ADD"), configuration(prevResult=RESULT | {"ips": ips}))
    with pytest.raises(CniError, match="prevResult is no result") as caught:
        _ = request.ips
    assert caught.value.code is Code.CONFIG


def test_the_plugins_own_keys_are_read() -> None:
    conf = configuration(failOpen=True, waitMs=500, timeoutMs=2000, runtimeConfig={"x": 1})
    assert read(environment("ADD"), conf).settings == Settings("node-a", True, 500, 2000)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_has_add_and_del(version: str) -> None:
    for command in ("ADD", "DEL"):
        assert read(environment(command), configuration(cniVersion=version)).version == version


@pytest.mark.parametrize(
    ("command", "version", "sentence"),
    [
        ("ADD", "0.3.0", "CNI version '0.3.0' is not supported"),
        ("ADD", "2.0.0", "CNI version '2.0.0' is not supported"),
        ("ADD", None, "CNI version None is not supported"),
        ("ADD", ["1.0.0"], r"CNI version ['1.0.0'] is not supported"),
        ("CHECK", "0.3.1", "CNI version 0.3.1 has no CHECK"),
        ("STATUS", "1.0.0", "CNI version 1.0.0 has no STATUS"),
        ("GC", "1.0.0", "CNI version 1.0.0 has no GC"),
    ],
)
def test_a_command_that_a_version_has_not_is_refused(command: str, version: Any, sentence: str) -> None:
    assert fault(command, configuration(cniVersion=version)) == (Code.VERSION, sentence)


def test_no_version_is_the_oldest() -> None:
    conf = json.loads(configuration())
    del conf["cniVersion"]
    assert fault("ADD", json.dumps(conf).encode())[0] is Code.VERSION


@pytest.mark.parametrize(
    ("command", "variable"),
    [
        ("ADD", "CNI_CONTAINERID"),
        ("ADD", "CNI_NETNS"),
        ("ADD", "CNI_IFNAME"),
        ("CHECK", "CNI_NETNS"),
        ("DEL", "CNI_CONTAINERID"),
        ("DEL", "CNI_IFNAME"),
    ],
)
def test_what_a_command_needs_is_named(command: str, variable: str) -> None:
    code, sentence = fault(command, **{variable: ""})
    assert code is Code.ENVIRONMENT
    assert variable in sentence


def test_a_del_needs_no_namespace_and_no_result() -> None:
    conf = json.loads(configuration())
    del conf["prevResult"]
    assert read(environment("DEL", CNI_NETNS=""), json.dumps(conf).encode()).netns == ""


def test_a_container_that_would_be_a_path_is_refused() -> None:
    assert fault(CNI_CONTAINERID="../x")[0] is Code.ENVIRONMENT


@pytest.mark.parametrize("command", ["", "PING", "add"])
def test_an_unknown_command_is_refused(command: str) -> None:
    code, sentence = fault(command)
    assert (code, repr(command) in sentence) == (Code.ENVIRONMENT, True)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", None),
        ("name", ""),
        ("name", "a/b"),
        ("node", None),
        ("node", "../etc"),
        ("node", 5),
        ("failOpen", "yes"),
        ("waitMs", -1),
        ("waitMs", True),
        ("waitMs", "5s"),
        ("timeoutMs", 1.5),
        ("prevResult", None),
        ("prevResult", []),
    ],
)
def test_a_bad_key_is_named_with_its_value(key: str, value: Any) -> None:
    code, sentence = fault("ADD", configuration(**{key: value}))
    assert (code, sentence.startswith(f"{key} is {json.dumps(value)}: ")) == (Code.CONFIG, True)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"[]", b"null"])
def test_what_is_no_object_is_refused(text: bytes) -> None:
    assert fault("ADD", text)[0] is Code.DECODE


@pytest.mark.parametrize(
    ("arguments", "pod"),
    [
        ("K8S_POD_NAMESPACE=a;K8S_POD_NAME=b", "a/b"),
        ("K8S_POD_NAME=b", ""),
        ("K8S_POD_NAMESPACE=a;K8S_POD_NAME=", ""),
        ("", ""),
        (";;=;x", ""),
    ],
)
def test_the_pod_is_the_one_that_kubelet_means(arguments: str, pod: str) -> None:
    assert read(environment("ADD", CNI_ARGS=arguments), configuration()).pod == pod


def test_gc_has_the_attachments_that_are_still_there() -> None:
    valid = [{"containerID": "c1", "ifname": "eth0"}, {"containerID": "c2", "ifname": "eth0"}]
    request = read({"CNI_COMMAND": "GC"}, configuration(**{"cni.dev/valid-attachments": valid}))
    assert request.valid == ("net/c1/eth0", "net/c2/eth0")


@pytest.mark.parametrize("valid", [None, {}, "x", [{}], ["x"], [{"containerID": "c"}]])
def test_gc_without_a_list_is_refused_since_it_would_end_everything(valid: Any) -> None:
    code, sentence = fault("GC", configuration(**{"cni.dev/valid-attachments": valid}))
    assert (code, "cni.dev/valid-attachments" in sentence) == (Code.CONFIG, True)


@pytest.mark.parametrize(
    ("text", "version"),
    [(b"", "1.1.0"), (b"{}", "1.1.0"), (b'{"cniVersion": "0.4.0"}', "0.4.0"), (b"[1]", "1.1.0")],
)
def test_the_version_for_an_answer(text: bytes, version: str) -> None:
    assert version_of(text) == version


WORDS = st.sampled_from(["", "ips", "interfaces", "address", "interface", "1.1.0", "node-a", "a/b", "é"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
KEYS = ("cniVersion", "name", "node", "failOpen", "waitMs", "prevResult", "cni.dev/valid-attachments")


@given(st.sampled_from(["ADD", "DEL", "CHECK", "GC", "STATUS"]), st.dictionaries(st.sampled_from(KEYS), JSON))
def test_nothing_but_cni_errors_comes_of_any_configuration(command: str, changes: dict[str, Any]) -> None:
    with suppress(CniError):
        assert isinstance(read(environment(command), configuration(**changes)).ips, list)
