"""Meshes of any size in which a lookup has as much to find as in any other: what surrounds it grows."""

from typing import Final

from zproxy.model.policy import (
    Action,
    Authorization,
    IpBlock,
    Match,
    PolicyScope,
    StringKind,
    StringMatch,
)
from zproxy.model.service import LoadBalancer, NetworkAddress, NetworkCidr, Scope, Service
from zproxy.model.workload import Locality, Protocol, ServicePort, Workload
from zproxy.state.store import Records

PER_SERVICE: Final = 10
"""Endpoints of a service, and workloads for each policy."""
PER_NAMESPACE: Final = 10
"""Services of a namespace, and policies."""
PER_RANGE: Final = 3
"""Services of which one has a range beside its address."""
LENGTHS: Final = (24, 28, 30)
"""Prefix lengths of ranges: each is one more place to look."""


def records(size: int) -> Records:
    """Return `size` workloads, and a tenth as many services and policies. All records are new ones."""
    few = size // PER_SERVICE
    return Records(
        [workload(number) for number in range(size)],
        [service(number) for number in range(few)],
        [policy(number) for number in range(few)],
    )


def ip(number: int) -> str:
    """Return the address of a workload."""
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"


def vip(number: int) -> str:
    """Return the address of a service."""
    return f"172.16.{number >> 8}.{number & 255}"


def within(number: int) -> str:
    """Return an address in the range of a service that has one."""
    return f"100.{64 + (number >> 8)}.{number & 255}.1"


def hostname(number: int) -> str:
    """Return the name of a service."""
    return f"service-{number}.{_namespace(number)}.svc.cluster.local"


def workload(number: int) -> Workload:
    """Return a pod that is an endpoint of one service and is selected by one policy."""
    served = number // PER_SERVICE
    namespace, key = _namespace(served), f"{_namespace(served)}/{hostname(served)}"
    name = f"service-{served}-5d8f7c9b6b-{number:05}"
    return Workload(
        uid=f"Kubernetes//Pod/{namespace}/{name}",
        name=name,
        namespace=namespace,
        service_account=f"service-{served}",
        workload_ips=(ip(number), f"fd00::{number + 1:x}"),
        protocol=Protocol.HBONE,
        node=f"node-{number % 100}",
        canonical_name=f"service-{served}",
        canonical_revision="v1",
        workload_name=f"service-{served}",
        workload_type="deployment",
        locality=Locality("region-1", f"zone-{number % 3}"),
        services=(key,),
        service_ports=(ServicePort(key, 80, 8080), ServicePort(key, 443, 8443)),
        authorization_policies=(f"{namespace}/policy-{served}",) if served % PER_NAMESPACE > 1 else (),
    )


def service(number: int) -> Service:
    """Return a service with two ports; every third has a range beside its address."""
    length = LENGTHS[number // PER_RANGE % len(LENGTHS)]
    around = NetworkCidr("", within(number).rpartition(".")[0] + ".0", length)
    return Service(
        name=f"service-{number}",
        namespace=_namespace(number),
        hostname=hostname(number),
        vips=(NetworkAddress("", vip(number)),),
        cidr_vips=(around,) if number % PER_RANGE == 0 else (),
        ports=((80, 8080), (443, 8443)),
        load_balancer=LoadBalancer((Scope.REGION, Scope.ZONE)),
    )


def policy(number: int) -> Authorization:
    """Return a policy of two rules; two of each namespace are for all of it, the others for one service."""
    namespace = _namespace(number)
    is_wide = number % PER_NAMESPACE < 2
    friends = StringMatch(StringKind.EXACT, f"cluster.local/ns/{namespace}/sa/service-{number}")
    near = StringMatch(StringKind.EXACT, namespace)
    return Authorization(
        f"policy-{number}",
        namespace,
        PolicyScope.NAMESPACE if is_wide else PolicyScope.WORKLOAD_SELECTOR,
        Action.DENY if number % PER_NAMESPACE == 0 else Action.ALLOW,
        (
            ((Match(principals=(friends,)),), (Match(destination_ports=(9999,)),)),
            ((Match(namespaces=(near,), not_source_ips=(IpBlock("192.0.2.0", 24),)),),)
            if number % PER_NAMESPACE
            else ((Match(destination_ports=(9998,)),),),
        ),
    )


def _namespace(served: int) -> str:
    return f"team-{served // PER_NAMESPACE}"
