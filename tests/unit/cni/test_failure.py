"""Failures as a runtime reads them."""

from zproxy.cni.failure import CniError, Code


def test_details_are_left_out_where_there_are_none() -> None:
    assert CniError(Code.TRY_AGAIN, "no").as_json("1.0.0") == {"cniVersion": "1.0.0", "code": 11, "msg": "no"}
    assert CniError(Code.CONFIG, "no", "why").as_json("1.0.0")["details"] == "why"
