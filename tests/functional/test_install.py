"""Salt is installed from the package registries, as on a site without a mirror."""


def test_salt_is_installed_from_the_registries_as_the_lock_says(from_registries):
    assert from_registries.run("salt-call", "--version").startswith("salt-call 3008.")
    made = (from_registries.root / "opt/qhub").stat().st_mtime_ns
    from_registries.install()
    assert (from_registries.root / "opt/qhub").stat().st_mtime_ns == made, "a second run does nothing"
