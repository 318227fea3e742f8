"""Addresses that a Dask scheduler reports."""

import sys

import pytest

from tests.unit.conftest import ROOT

sys.path.insert(0, str(ROOT / "formulas/dask_gateway/files"))
from qhub_dask.addresses import refused  # noqa: E402

NODE, PORTS = "10.0.0.11", range(32768, 60001)
GOOD = {
    "api_address": f"http://{NODE}:40000",
    "scheduler_address": f"tls://{NODE}:32768",
    "dashboard_address": f"http://{NODE}:60000",
}


def test_addresses_of_the_scheduler_s_job_are_taken():
    assert refused(GOOD, NODE, PORTS) == []
    assert refused({**GOOD, "dashboard_address": ""}, NODE, PORTS) == []


@pytest.mark.parametrize("key", GOOD)
@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:40000", "http://10.0.0.12:40000", f"http://{NODE}:9100", f"http://{NODE}:60001",
        f"http://x@{NODE}:40000", f"http://{NODE}:40000/metrics", "http://[::ffff:127.0.0.1]:40000",
        f"gopher://{NODE}:40000", f"http://{NODE}", f"http://{NODE}:40000\n", None, 5,
    ],
)  # fmt: skip
def test_another_address_is_refused(key, address):
    text = address.replace("http", "tls") if isinstance(address, str) and key == "scheduler_address" else address
    lines = refused({**GOOD, key: text}, NODE, PORTS)
    assert len(lines) == 1
    assert lines[0].startswith(f"{key}: ")
