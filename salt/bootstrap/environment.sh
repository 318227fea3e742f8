#!/usr/bin/env bash
# Install the Python programs that a lock lists, exactly as it says, in an environment of their own.
#
#   environment.sh [--check | --lazy] NAME LOCK [WHEELS [PARENT]]
#
#   NAME     the environment becomes PARENT/NAME-DIGEST, with the link PARENT/NAME to it
#   LOCK     requirements with hashes
#   WHEELS   a directory of a mirror's wheels, verified by the caller or by the mirror's checksums, or '': the registry
#   PARENT   /opt/qhub, if left out
#   --check  install nothing; status 1 if another lock is installed, or none
#   --lazy   do not compile: who runs them can write here, and so does it by and by
#
# A new version is built beside the old one and then takes its place. The old one stays for whoever still runs it; the
# one before is removed.
set -euo pipefail

mode=''
case $1 in
    --check | --lazy) mode=$1; shift ;;
esac
name=$1
lock=$2
wheels=${3:-}
parent=${4:-/opt/qhub}
environment=$parent/$name-$(sha256sum "$lock" | cut -c1-12)
current=$parent/$name
before=$(readlink "$current" || true)

if [ "$before" = "$environment" ]; then
    exit 0
fi
if [ "$mode" = --check ]; then
    exit 1
fi
rm -rf "$environment"
mkdir -p "$parent"
python3 -m venv "$environment"
# What is in a lock was tried with the Python that nodes have, whatever the package says of it.
pip=("$environment/bin/pip" install --quiet --disable-pip-version-check --no-deps --no-compile --ignore-requires-python)
if [ -n "$wheels" ]; then
    # They were built from the lock's hashes and are covered by the mirror's checksums.
    "${pip[@]}" --no-index "$wheels"/*.whl
else
    "${pip[@]}" --require-hashes --requirement "$lock"
fi
if [ "$mode" != --lazy ]; then
    # Some packages bring files for other versions of Python, which do not compile.
    "$environment/bin/python" -m compileall -q -j 0 "$environment/lib" >/dev/null || true
fi
ln -sfn "$environment" "$current.part"
mv -T "$current.part" "$current"
for old in "$parent/$name"-????????????; do
    if [ "$old" != "$environment" ] && [ "$old" != "$before" ]; then
        rm -rf "$old"
    fi
done
