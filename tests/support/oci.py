"""A container image made of this machine's busybox, as an archive that container runtimes import.

OCI image layout 1.0: blobs by digest, an index that names them. No registry is asked for anything.
"""

import hashlib
import io
import json
import platform
import re
import shutil
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
"""What uname says → what Go, and so the image format, says."""
APPLETS: Final = ("cat", "httpd", "nc", "nslookup", "sh", "sleep", "wget")
_KIND: Final = "application/vnd.oci.image"


def write_images(path: Path, names: Mapping[str, Sequence[str]]) -> None:
    """Write an archive with an image for each of `names`: its reference → the command that it runs.

    All of them have the same one layer: busybox, and the libraries that it is linked to.
    """
    layer = _layer()
    blobs: dict[str, bytes] = {}
    manifests = []
    for name, command in names.items():
        config = {
            "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {"Cmd": list(command), "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{_KIND}.manifest.v1+json",
            "config": _put(blobs, _json(config), f"{_KIND}.config.v1+json"),
            "layers": [_put(blobs, layer, f"{_KIND}.layer.v1.tar")],
        }
        entry = _put(blobs, _json(manifest), f"{_KIND}.manifest.v1+json")
        manifests.append(entry | {"annotations": {"io.containerd.image.name": name}})
    with tarfile.open(path, "w") as archive:
        _add(archive, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add(archive, "index.json", _json({"schemaVersion": 2, "manifests": manifests}))
        for digest, blob in blobs.items():
            _add(archive, "blobs/" + digest.replace(":", "/"), blob)


def _layer() -> bytes:
    buffer = io.BytesIO()
    busybox = shutil.which("busybox")
    assert busybox is not None, "no busybox: .ci/bootstrap test installs it"
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        for directory in ("bin", "dev", "etc", "proc", "sys", "tmp", "www"):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            layer.addfile(entry)
        _add(layer, "bin/busybox", Path(busybox).read_bytes(), 0o755)
        for library in _libraries(busybox):
            _add(layer, library.lstrip("/"), Path(library).read_bytes(), 0o755)
        for applet in APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            layer.addfile(link)
        _add(layer, "www/get", b"a page of the pod\n")
    return buffer.getvalue()


def _libraries(program: str) -> list[str]:
    """Return the files that the dynamic linker would load; none for a static program."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    return sorted(set(re.findall(r"(/\S+) \(0x", listed)))


def _put(blobs: dict[str, bytes], blob: bytes, kind: str) -> dict[str, Any]:
    digest = _digest(blob)
    blobs[digest] = blob
    return {"mediaType": kind, "digest": digest, "size": len(blob)}


def _digest(blob: bytes) -> str:
    return "sha256:" + hashlib.sha256(blob).hexdigest()


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _add(archive: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    archive.addfile(entry, io.BytesIO(data))
