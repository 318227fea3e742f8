#!/usr/bin/env bash
# Make this machine a minion that its master already trusts. salt-cloud (salt/_clouds/saltify.py) brings this script here
# with the minion's keys, the master's, and the configuration that the minion first starts with, in one directory.
#
#   deploy.sh [MIRROR]     MIRROR: a directory made by mirror.py, instead of the package registries
#
# The same as bootstrap/minion.sls does over salt-ssh; here the minion applies its states itself. Safe to run again.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
bootstrap=/var/lib/qhub/bootstrap
keys=/etc/salt/pki/minion

install -d -m 0700 /etc/salt
install -d -m 0755 "$bootstrap"
install -m 0755 "$here/install.sh" "$here/apt_get.py" "$here/environment.sh" "$here/root_only.sh" "$bootstrap"
install -m 0644 "$here/requirements.lock" "$bootstrap"
"$bootstrap/install.sh" "$bootstrap/requirements.lock" "${1:-}"

install -d -m 0700 "$keys"
install -m 0400 "$here/minion.pem" "$keys"
install -m 0644 "$here/minion.pub" "$here/minion_master.pub" "$keys"
salt-call --config-dir="$here" --retcode-passthrough --state-output=terse --state-verbose=false --log-level=error \
    state.apply salt.minion
systemctl restart salt-minion.service
