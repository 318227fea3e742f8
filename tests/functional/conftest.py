"""Machines that several files of tests share; a machine is started by the first test that asks for it."""

import pytest

from tests.functional.keycloak import Keycloak


@pytest.fixture(scope="session")
def keycloak():
    machine = Keycloak()
    try:
        machine.start()
        yield machine
    finally:
        machine.destroy()
