"""What may be chosen for a pod when it is enrolled, and what it brings along."""

from enum import Enum
from typing import Final, NamedTuple


class UdpPolicy(Enum):
    """What becomes of UDP that leaves the pod in the clear; DNS is not meant."""

    AUDIT = "audit"
    """It passes and is recorded."""
    BLOCK = "block"
    """It is dropped and counted."""


class ResolvConf(NamedTuple):
    """What a pod's processes know about DNS, from its resolv.conf(5)."""

    nameservers: tuple[str, ...] = ()
    """Canonical text, in their order, at most 3; where there are none, processes ask the pod itself."""
    search: tuple[str, ...] = ()
    """Domains that short names are tried in, in their order; lower-case, without the dot behind them."""


class PodOptions(NamedTuple):
    """The defaults are the safe ones, and what ztunnel does where it knows the choice."""

    dns: bool = True
    """Whether the pod's DNS goes to port 15053 of its straw."""
    udp: UdpPolicy = UdpPolicy.AUDIT
    fail_open: bool = False
    """Whether its traffic passes in the clear while no daemon is alive, instead of being refused."""

    def as_json(self) -> dict[str, bool | str]:
        """Return the form that records and answers have."""
        return {"dns": self.dns, "udp": self.udp.value, "fail_open": self.fail_open}

    @classmethod
    def of_json(cls, value: dict[str, bool | str]) -> "PodOptions":
        """Return what `as_json` made; what is missing is default. Raise ValueError for what it cannot be."""
        dns, udp, fail_open = (
            value.get("dns", True),
            value.get("udp", "audit"),
            value.get("fail_open", False),
        )
        return cls(bool(dns), UdpPolicy(udp), bool(fail_open))


DEFAULT_OPTIONS: Final = PodOptions()
