"""Machines that tests share: those that the chosen tests need are started while the first of the tests run."""

import contextlib
import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.functional.conda_store import CondaStore
from tests.functional.install import FromRegistries
from tests.functional.keycloak import Keycloak, Realm
from tests.functional.keycloak_service import KeycloakService
from tests.functional.modules import Modules
from tests.functional.slurm import Slurm
from tests.lab.harness.node import LoneNode, clear

#: fixture -> its machine
MACHINES: dict[str, type] = {
    "conda_store": CondaStore,
    "from_registries": FromRegistries,
    "keycloak": Keycloak,
    "keycloak_service": KeycloakService,
    "slurm_machine": Slurm,
}


@pytest.fixture(scope="package", autouse=True)
def starting(request):
    """``{fixture: (machine, future of its start)}``: one at a time, in the order in which tests need them."""
    asked = (name for item in request.session.items for name in item.fixturenames)
    needed = [name for name in dict.fromkeys(asked) if name in MACHINES]
    clear(LoneNode)
    machines = {name: MACHINES[name]() for name in needed}
    pool = ThreadPoolExecutor(max_workers=1)
    with contextlib.ExitStack() as ends:
        for machine in machines.values():
            ends.callback(machine.destroy)
        ends.callback(pool.shutdown, cancel_futures=True)
        yield {name: (machine, pool.submit(machine.start)) for name, machine in machines.items()}


def started(name):
    """Return the fixture that waits for a machine."""

    @pytest.fixture(scope="package", name=name)
    def wait(starting):
        machine, start = starting[name]
        start.result()
        return machine

    return wait


from_registries = started("from_registries")
keycloak = started("keycloak")
keycloak_service = started("keycloak_service")
slurm_machine = started("slurm_machine")
#: What conda_store_env sets for all of it stays set, so that its tests come last.
conda_store = started("conda_store")


@pytest.fixture(scope="package")
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
