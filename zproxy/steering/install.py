"""Put a node's maps and programs in place: adopt what is pinned, upgrade it, or load afresh.

1. Nothing pinned: compile, load, pin, sign.
2. Pinned from the same sources: adopt; nothing is compiled and no connection notices.
3. Same maps, other programs (a new version, or an upgrade that was interrupted): load the new programs on the
   pinned maps, swap them in every link, then take their pins over. Enrolled pods stay steered throughout.
4. Another version's maps: set aside, where they steer on until this version has taken up their pods.
5. Anything else, and what nobody finished: replaced when no pod is enrolled in it, refused otherwise, because
   throwing the maps away would let the pods' traffic out in the clear.
6. What others could have written, or somebody else's link under our name: refused, whoever is enrolled.
"""

import logging
import os

from zproxy.errors import SteeringError
from zproxy.steering import build, links, source, syscall
from zproxy.steering.former import set_aside
from zproxy.steering.hooks import HOOKS
from zproxy.steering.layout import COOKIE, LAYOUT
from zproxy.steering.objects import Objects, Outdated, Unusable, check_steering, open_maps, open_programs
from zproxy.steering.pins import NodePins, entries, remove_tree

_log = logging.getLogger(__name__)


def install(pins: NodePins) -> Objects:
    """Return the node's maps and programs, signed by this build. Blocks for a second at most."""
    wanted = source.build_hash(source.flatten(source.directory()), source.cflags())
    if strangers := pins.strangers():
        raise SteeringError(
            f"{strangers[0]} is not zproxy's, so nothing in {pins.directory} is touched; remove it, or "
            "run under another --node"
        )
    _refuse_other_owners(pins)
    if not entries(pins.maps):
        return _load_afresh(pins, wanted)
    try:
        return _take_up(pins, wanted)
    except Unusable as finding:
        if isinstance(finding, Outdated) and _has_pods(pins):
            _log.warning("%s; its pods are taken up one by one", finding)
            set_aside(pins)
        else:
            _replace(pins, finding)
        return _load_afresh(pins, wanted)


def _take_up(pins: NodePins, wanted: str) -> Objects:
    """Return what is pinned, with this build's programs; raise Unusable when that cannot be relied upon."""
    objects = open_maps(pins)
    try:
        if objects.meta.layout == 0:
            raise Unusable(f"{pins.maps} was never finished")
        if not _adopt(pins, objects, wanted):
            check_steering(pins, objects)
            _upgrade(pins, objects, wanted)
    except BaseException:
        objects.close()
        raise
    return objects


def _refuse_other_owners(pins: NodePins) -> None:
    """Pins that another user may exchange are nobody's word for what steers a pod."""
    for path in (pins.directory, *pins.parts(), *pins.pod_directories(), pins.former.directory):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise SteeringError(
                f"{path} can be changed by others (uid {status.st_uid}, mode {status.st_mode & 0o777:o}), so "
                f"nothing in it is trusted; find out why, then `chown root {path}` and `chmod 700 {path}`"
            )


def _load_afresh(pins: NodePins, wanted: str) -> Objects:
    _clear(pins)
    for directory in (pins.directory, pins.maps, pins.programs, pins.links, pins.pods):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        build.load(pins.maps, pins.programs)
        objects = open_maps(pins)
        try:
            open_programs(pins, objects)
            objects.sign(wanted)
        except BaseException:
            objects.close()
            raise
    except BaseException as error:
        _clear(pins)
        if isinstance(error, Unusable):
            raise SteeringError(
                f"{error} although it has just been made; the installation is damaged"
            ) from error
        raise
    return objects


def _clear(pins: NodePins) -> None:
    """Remove the tree, except what was set aside."""
    for part in pins.parts():
        list(remove_tree(part))
    if not entries(pins.directory):
        list(remove_tree(pins.directory))


def _adopt(pins: NodePins, objects: Objects, wanted: str) -> bool:
    meta = objects.meta
    if (meta.layout, meta.build) != (LAYOUT, wanted):
        return False
    try:
        open_programs(pins, objects)
    except Unusable as finding:
        _log.warning("%s; loading it again", finding)
        objects.close_programs()
        return False
    list(remove_tree(pins.programs_new))
    _refresh(pins, objects)
    _log.info("adopted the eBPF programs pinned in %s", pins.directory)
    return True


def _upgrade(pins: NodePins, objects: Objects, wanted: str) -> None:
    list(remove_tree(pins.programs_new))
    pins.programs_new.mkdir(mode=0o700)
    build.load(pins.maps, pins.programs_new)
    try:
        open_programs(pins, objects, upgraded=True)
    except Unusable as finding:
        raise SteeringError(
            f"{finding} although it has just been made; the installation is damaged"
        ) from finding
    _refresh(pins, objects)
    list(remove_tree(pins.programs))
    pins.programs_new.rename(pins.programs)
    objects.sign(wanted)
    _log.info("upgraded the eBPF programs pinned in %s", pins.directory)


def _refresh(pins: NodePins, objects: Objects) -> None:
    """Let every link that is pinned run this build's program."""
    names = {hook.pin: name for name, hook in HOOKS.items()}
    for pin in pins.link_pins():
        name = names.get(pin.name.partition("-")[0])
        if name is not None:
            links.refresh(pin, HOOKS[name], objects.programs[name])


def _replace(pins: NodePins, finding: Unusable) -> None:
    if _has_pods(pins):
        raise SteeringError(
            f"{finding}, and pods are enrolled there; unenroll them with the version that enrolled them, "
            f"or drop their steering with `rm -r {pins.directory}`"
        )
    for pin in pins.link_pins():
        links.refuse_foreign(pin)
    _log.warning("%s; no pod is enrolled there, so it is replaced", finding)


def _has_pods(pins: NodePins) -> bool:
    if pins.pod_directories():
        return True
    try:
        fd = syscall.obj_get(pins.maps / "zp_pods")
    except OSError:
        return False
    try:
        return syscall.map_next_key(fd, None, COOKIE.size) is not None
    except OSError:
        return False
    finally:
        os.close(fd)
