"""Claim 6: a service has an address and names, and what asks for them gets to the pod through the tunnel."""

from collections.abc import Iterator

from zproxy.lab.claim_log import line_of
from zproxy.lab.claim_path import origin_of
from zproxy.lab.observation import Observation
from zproxy.lab.proof import Evidence, Proof
from zproxy.lab.rows import ServiceRow
from zproxy.lab.traffic import Answer


def prove(seen: Observation, service: ServiceRow) -> Proof:
    """Judge by where curl was led, whom the app saw, and which service the log names."""
    evidence = [Evidence(answer.command, (_told(answer),)) for answer in seen.called]
    how = "by address and by name" if any(answer.host for answer in seen.called) else "by address"
    title = f"{service.hostname} leads to its pod {how}, through the mesh"
    if seen.source.row.dns and not any(answer.host for answer in seen.called):
        evidence.append(
            Evidence(
                f"ls /etc/netns/{seen.source.row.netns_path.rpartition('/')[2]}/resolv.conf",
                (f"(nothing: so no name is looked up inside {seen.source.row.pod})",),
            )
        )
    against = [sentence for answer in seen.called for sentence in _wrong(seen, service, answer)]
    if not seen.called:
        against.append(f"no address of {service.hostname} was asked")
    return Proof(6, title, tuple(evidence), tuple(against))


def _told(answer: Answer) -> str:
    if answer.error:
        return f"failed: {answer.error}"
    found = f"{answer.host} is {answer.remote.ip}; " if answer.host else ""
    return f'{found}HTTP {answer.status}, "origin": "{origin_of(answer)}"'


def _wrong(seen: Observation, service: ServiceRow, answer: Answer) -> Iterator[str]:
    asked = answer.host or str(answer.remote)
    if answer.error:
        yield f"{answer.command} failed: {answer.error}"
        return
    if answer.status != 200:
        yield f"{answer.command} was answered with {answer.status}"
    if answer.remote.ip not in service.vips:
        yield f"{asked} is {answer.remote.ip} for {seen.source.row.pod}, no address of {service.hostname}"
    if origin_of(answer) not in ("", *seen.source.row.ips):
        yield f"the app saw {origin_of(answer)} as its peer when {asked} was asked"
    line = line_of(seen, answer)
    if seen.source.log and line is not None and line.get("dst.service") != service.hostname:
        yield f"the log has dst.service={line.get('dst.service')!r} where {asked} was asked"
    if line is not None and not line.get("dst.hbone_addr"):
        yield f"the connection to {asked} was not carried by a tunnel"
