"""A site's own certificate: what is said of one that is not fit."""

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.unit.load import load

NOW = datetime.datetime.now(datetime.timezone.utc)
NAME = "hpc.example.org"
PEM = serialization.Encoding.PEM


certificate = load("_states/certificate.py", "certificate_state")


def issue(subject, key, issuer, issuer_key, *, names=(), days=30, begins=-60):
    """Return a certificate that ends in ``days``."""
    builder = x509.CertificateBuilder(
        x509.Name.from_rfc4514_string(issuer), x509.Name.from_rfc4514_string(subject), key.public_key()
    )
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(NOW + datetime.timedelta(begins)).not_valid_after(NOW + datetime.timedelta(days))
    if names:
        held = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        builder = builder.add_extension(held, critical=False)
    else:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(issuer_key, hashes.SHA256())


@pytest.fixture
def files(tmp_path):
    """Return a function that writes a certificate, its chain and its key; returns their paths."""
    authority, own = ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)

    def write(names=(NAME,), *, chain=("CN=The university",), key=own, password=None, **when):
        issued = [issue("CN=door", own, "CN=The university", authority, names=names, **when)]
        issued += [issue(subject, authority, subject, authority) for subject in chain]
        (tmp_path / "door.pem").write_bytes(b"".join(each.public_bytes(PEM) for each in issued))
        lock = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        (tmp_path / "door.key").write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, lock))
        return tmp_path / "door.pem", tmp_path / "door.key"

    return write


def told(paths, *names):
    return certificate.problems(*paths, names or (NAME,), NOW)


@pytest.mark.parametrize("held", [(NAME,), ("*.example.org",), ("www.example.org", NAME), (NAME.upper(),)])
def test_a_fit_one_is_taken(files, held):
    found, end = told(files(held))
    assert found == []
    assert (end - NOW).days == 29


@pytest.mark.parametrize("held", [("example.org",), ("*.org",), ("*.hpc.example.org",), ("*",)])
def test_the_name_has_to_be_in_it(files, held):
    found, _ = told(files(held))
    assert len(found) == 1
    assert f"is not for {NAME} but for {held[0]}" in found[0]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"days": -1}, "has ended on"),
        ({"begins": 1}, "is valid only from"),
        ({"key": ec.generate_private_key(ec.SECP256R1())}, "is not the key of"),
        ({"password": b"sesame"}, "is not a key without a password in PEM form"),
        ({"chain": ("CN=Somebody else",)}, "CN=door is not issued by the next, CN=Somebody else"),
    ],
)
def test_one_that_is_not_fit_is_refused(files, how, message):
    found, _ = told(files(**how))
    assert len(found) == 1
    assert message in found[0]


def test_everything_that_is_wrong_is_told_at_once(files, tmp_path):
    found, _ = told(files(("www.example.org",), days=-1, key=ec.generate_private_key(ec.SECP256R1())))
    assert len(found) == 3
    found, end = told((tmp_path / "no.pem", None))
    assert end is None
    assert found == [
        f"{tmp_path}/no.pem: No such file or directory",
        "there is no file with a key without a password: name it",
    ]
    (tmp_path / "text").write_text("not PEM")
    assert "is not a certificate in PEM form" in told((tmp_path / "text", tmp_path / "text"))[0][0]


def test_nothing_is_written_in_test_mode_or_if_it_is_refused(files, monkeypatch):
    calls = []

    def managed(name, **options):
        calls.append((name, options))
        return {"result": None, "changes": {"diff": "secret"}, "comment": ""}

    monkeypatch.setattr(certificate, "__states__", {"file.managed": managed}, raising=False)
    source, key = files(("www.example.org",))
    ret = certificate.installed("/x.crt", "/x.key", source, key, [NAME])
    assert (ret["result"], ret["changes"], calls) == (False, {}, [])
    source, key = files(days=20)
    ret = certificate.installed("/x.crt", "/x.key", source, key, [NAME], group="traefik")
    assert (ret["result"], sorted(ret["changes"])) == (None, ["/x.crt", "/x.key"])
    assert "secret" not in str(ret)
    assert "is valid until" in ret["warnings"][0]
    assert [(name, each["mode"], each.get("group")) for name, each in calls] == [
        ("/x.key", "0640", "traefik"),
        ("/x.crt", "0644", None),
    ]
    assert all(each["show_changes"] is False for _, each in calls)
