from zproxy.wire.errors import ErrorCode, LocalProtocolError, RemoteProtocolError, code_name


def test_a_code_is_named_as_the_rfc_does() -> None:
    assert code_name(7) == "REFUSED_STREAM"
    assert code_name(0xFF) == "0xff"


def test_an_error_says_its_code_and_its_cause() -> None:
    assert str(RemoteProtocolError(ErrorCode.STREAM_CLOSED, "why")) == "HTTP/2 STREAM_CLOSED: why"
    assert LocalProtocolError("ours").code is ErrorCode.INTERNAL_ERROR
