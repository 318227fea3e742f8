"""
Certificates that somebody else issued: put in place if they are fit for their purpose.
"""

import datetime
from pathlib import Path

__states__: dict

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    HAS_CRYPTOGRAPHY = True
except ImportError:
    HAS_CRYPTOGRAPHY = False

#: Days before its end from which a certificate is warned of.
WARN = 21


def __virtual__():
    return (True, "") if HAS_CRYPTOGRAPHY else (False, "no cryptography here")


def installed(name, key, source, key_source, hosts, group="root"):  # noqa: PLR0917 (a state's arguments have names)
    """
    Install a certificate with its chain, and its key, from files on this machine, unless they are not fit for use.

    name
        Where the certificate goes. Everybody may read it.
    key
        Where the key goes. root and ``group`` may read it.
    source
        PEM file with the certificate, then those of the authorities between it and one that clients know.
    key_source
        PEM file with the key, without a password.
    hosts
        List of the DNS names the certificate has to hold (``*.example.org`` holds ``hpc.example.org``).
    group
        See ``key``.

    ``changes`` has the names of the files that were written. Fails, before anything is written, if a file cannot be
    read, the key is not the certificate's, a name is missing, the certificate is not valid today, or the chain is out
    of order; warns 21 days before its end.

    .. code-block:: yaml

        Site's certificate is in place:
          certificate.installed:
            - name: /etc/qhub/tls/site.crt
            - key: /etc/qhub/tls/site.key
            - source: /etc/ssl/site/hpc.pem
            - key_source: /etc/ssl/site/hpc.key
            - hosts: [hpc.example.org]
    """
    ret = {"name": name, "result": False, "changes": {}, "comment": ""}
    found, end = problems(source, key_source, hosts, datetime.datetime.now(datetime.UTC))
    if found:
        ret["comment"] = "The certificate is refused, and nothing was changed:\n" + "\n".join(
            f"  - {line}" for line in found
        )
        return ret
    if end < datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=WARN):
        ret["warnings"] = [f"{source} is valid until {end:%Y-%m-%d} only"]
    files = {
        key: {"source": str(key_source), "mode": "0640", "group": group},
        name: {"source": str(source), "mode": "0644"},
    }
    results = []
    for path, options in files.items():
        each = __states__["file.managed"](path, user="root", makedirs=True, show_changes=False, **options)
        if each["changes"]:
            ret["changes"][path] = {"old": "another", "new": "that of the site"}
        results.append(each["result"])
        if each["result"] is False:
            ret["comment"] = each["comment"]
            return ret
    ret["result"] = None if None in results else True
    ret["comment"] = f"The certificate is valid until {end:%Y-%m-%d}"
    return ret


def problems(source, key_source, hosts, now):
    """Return what speaks against a certificate (a list of lines), and when it ends (``None`` if it cannot be read)."""
    found = []
    chain = parsed(source, "a certificate", x509.load_pem_x509_certificates, found)
    key = parsed(key_source, "a key without a password", load_key, found)
    if not chain:
        return found, None
    first = chain[0]
    if key and key.public_key() != first.public_key():
        found.append(f"{key_source} is not the key of {source}")
    held = held_names(first)
    found += [
        f"{source} is not for {each} but for {', '.join(held) or 'nobody'}" for each in hosts if not covers(held, each)
    ]
    for each in chain:
        subject = each.subject.rfc4514_string()
        if each.not_valid_after_utc <= now:
            found.append(f"{source}: {subject} has ended on {each.not_valid_after_utc:%Y-%m-%d}")
        if each.not_valid_before_utc > now:
            found.append(f"{source}: {subject} is valid only from {each.not_valid_before_utc:%Y-%m-%d}")
    for below, above in zip(chain, chain[1:], strict=False):
        try:
            below.verify_directly_issued_by(above)
        except Exception as error:  # ValueError, TypeError, InvalidSignature: all mean no
            subjects = f"{below.subject.rfc4514_string()} is not issued by the next, {above.subject.rfc4514_string()}"
            found.append(f"{source}: {subjects} ({error})")
    return found, min(each.not_valid_after_utc for each in chain)


def parsed(path, what, load, found):
    """Return what ``load`` makes of a file; ``None``, and a line in ``found``, if there is no such thing in it."""
    if not path:
        found.append(f"there is no file with {what}: name it")
        return None
    try:
        return load(Path(path).read_bytes())
    except OSError as error:
        found.append(f"{path}: {error.strerror}")
    except (ValueError, TypeError):
        found.append(f"{path} is not {what} in PEM form")
    return None


def load_key(text):
    """Return the private key in PEM ``text``."""
    return serialization.load_pem_private_key(text, password=None)


def held_names(certificate):
    """Return the DNS names (a list) a certificate is for."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return extension.value.get_values_for_type(x509.DNSName)


def covers(held, name):
    """Whether one of the names a certificate holds is ``name``, or has ``*`` for its first part."""
    return bool({name, "*." + name.partition(".")[2]} & {each.lower() for each in held})
