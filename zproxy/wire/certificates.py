"""Certificates at the edge of the TLS libraries: PEM that they want as files, names of a verified leaf."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from zproxy.wire.tls_failures import failed


@contextmanager
def pem_file(content: bytes) -> Iterator[str]:
    """Lend `content` to a library that only reads paths, without a file that could be found or left behind.

    The path names a memfd of this process and is void after the block.
    """
    fd = os.memfd_create("zproxy-pem", os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(content)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def uri_names(leaf: bytes) -> tuple[str, ...]:
    """Return the URI subject alternative names of a DER certificate, in its order."""
    from cryptography import x509

    try:
        extensions = x509.load_der_x509_certificate(leaf).extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return tuple(names.get_values_for_type(x509.UniformResourceIdentifier))
    except x509.ExtensionNotFound:
        return ()
    except ValueError as error:
        raise failed("the peer's certificate has names that cannot be decoded") from error
