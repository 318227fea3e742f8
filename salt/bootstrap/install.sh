#!/usr/bin/env bash
# Install Salt and its Python dependencies, exactly as the lock says, under /opt/qhub/salt.
#
#   install.sh LOCK [MIRROR]     MIRROR: a directory made by mirror.py, instead of the package registries
#
# Does nothing when that lock is installed. A new version is built beside the old one and then takes its place.
set -euo pipefail

lock=$1
mirror=${2:-}
here=$(cd "$(dirname "$0")" && pwd)

if "$here/environment.sh" --check salt "$lock"; then
    exit 0
fi
if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
    echo "install.sh: Salt needs python3, version 3.10 or later" >&2
    exit 1
fi
if [ -n "$mirror" ]; then
    if [ ! -r "$mirror/debs/Packages" ]; then
        echo "install.sh: $mirror holds no mirror (no debs/Packages): make one with salt/bootstrap/mirror.py" >&2
        exit 1
    fi
    "$here/root_only.sh" "$mirror"
    # Finds a copy that is damaged or incomplete. Whoever may write to the mirror can change the sums as well.
    (cd "$mirror" && sha256sum --quiet --check SHA256SUMS)
    echo "deb [trusted=yes] file:$mirror/debs ./" >/etc/apt/sources.list.d/qhub-mirror.list
fi
packages=(python3-venv ca-certificates)
if [ -z "$mirror" ]; then
    packages+=(gcc libc6-dev python3-dev) # Salt and one of its dependencies are published as source only
fi
"$here/apt_get.py" update --quiet=2
"$here/apt_get.py" install --yes --quiet=2 --no-install-recommends "${packages[@]}" >/dev/null
for program in salt salt-call salt-cloud salt-cp salt-key salt-master salt-minion salt-run salt-ssh; do
    ln -sfn "/opt/qhub/salt/bin/$program" "/usr/local/bin/$program"
done
"$here/environment.sh" --lazy salt "$lock" "${mirror:+$mirror/wheels}"
