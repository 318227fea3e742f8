"""Machines that several files of tests share; a machine is started by the first test that asks for it."""

import itertools

import pytest

from tests.functional.conda_store import CondaStore
from tests.functional.keycloak import Keycloak, Realm
from tests.functional.modules import Modules


@pytest.fixture(scope="session")
def keycloak():
    machine = Keycloak()
    try:
        machine.start()
        yield machine
    finally:
        machine.destroy()


@pytest.fixture(scope="session")
def new_realm(keycloak, tmp_path_factory):
    """A function that returns a realm of a name that was not there before; it is not made yet."""
    options = {"keycloak_realm": {**keycloak.connection, "timeout": 30}}
    modules = Modules("keycloak_realm", tmp_path_factory.mktemp("salt"), **options)
    names = (f"realm{number}" for number in itertools.count(1))
    return lambda: Realm(keycloak, modules, next(names))


@pytest.fixture
def realm(new_realm):
    """A realm for one test."""
    made = new_realm()
    yield made
    made.delete()


@pytest.fixture(scope="session")
def conda_store():
    """conda-store; what conda_store_env sets for all of it stays set, so that its tests come last."""
    machine = CondaStore()
    try:
        machine.start()
        yield machine
    finally:
        machine.destroy()
