"""The lab's names and addresses."""

import ipaddress

from zproxy.lab.layout import CLIENT, SERVER, make_layout


def test_the_names_are_those_that_commands_expect() -> None:
    layout = make_layout()
    assert layout.namespaces == ("demo-client", "demo-server", "zproxy-node-a", "zproxy-node-b")
    assert [site.pod for site in layout.pods] == [CLIENT, SERVER]
    assert all(site.netns == site.pod.replace("/", "-") for site in layout.pods)


def test_each_pod_is_in_its_nodes_network_and_in_no_other() -> None:
    layout = make_layout()
    for node, site in zip(layout.nodes, layout.pods, strict=True):
        for net, ip, gateway in (
            (site.pod_net4, site.ip4, node.pod_gateway4),
            (site.pod_net6, site.ip6, node.pod_gateway6),
        ):
            hosts = [pod for pod in layout.pods for at in (pod.ip4, pod.ip6) if _within(at, net)]
            assert hosts == [site]
            assert _within(ip, net)
            assert _within(gateway, net)


def test_a_prefix_keeps_layouts_apart() -> None:
    one, other = make_layout(), make_layout("zpt-1-")
    assert not set(one.namespaces) & set(other.namespaces)
    assert not {node.name for node in one.nodes} & {node.name for node in other.nodes}


def _within(ip: str, net: str) -> bool:
    return ipaddress.ip_address(ip) in ipaddress.ip_network(net)
