#!/usr/bin/env bash
# Turn this machine into the master of a cluster. Run again on one, it brings Salt itself to the checkout's version and
# generates secrets that are new; the services are for orch.upgrade.
#
#   master.sh [--address ADDRESS] [--network CIDR] [--mirror DIRECTORY]
#   master.sh --restore REPOSITORY --password-file FILE [--environment-file FILE] [--snapshot ID] [--mirror DIRECTORY]
#
#   --address   this machine's address on the cluster network (default: that of the default route)
#   --network   the cluster network (default: the one ADDRESS is in)
#   --mirror    a package mirror made by mirror.py, for a site without a way out
#   --restore   be the master that was lost, from its backup in this restic repository; the files have the repository's
#               password and, as lines NAME=VALUE, what restic needs in its environment (docs/operations/backup.md)
#   --snapshot  which backup (default: latest)
#
# The answers are written to /etc/qhub/pillar/cluster.sls once; later that file is what counts.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd -P)
checkout=$(cd "$here/../.." && pwd -P)
site=/etc/qhub/pillar
generated=/var/lib/qhub
ready=$generated/ready # once its states were applied as a whole

fail() { echo "master.sh: $*" >&2; exit 1; }
say() { printf '== %s\n' "$*"; }

address='' network='' mirror='' repository='' password='' environment='' snapshot=latest
while [ $# -gt 0 ]; do
    case $1 in
        --address) address=$2; shift 2 ;;
        --network) network=$2; shift 2 ;;
        --mirror) mirror=$2; shift 2 ;;
        --restore) repository=$2; shift 2 ;;
        --password-file) password=$2; shift 2 ;;
        --environment-file) environment=$2; shift 2 ;;
        --snapshot) snapshot=$2; shift 2 ;;
        *) sed -n '2,16s/^# \?//p' "$0"; [ "$1" = --help ] && exit 0; exit 2 ;;
    esac
done
[ "$(id -u)" = 0 ] || fail "run me as root"
[ "$(ps -p 1 -o comm=)" = systemd ] || fail "this machine is not run by systemd"
"$here/root_only.sh" "$checkout" || fail "nothing was changed"
if [ -n "$mirror" ]; then
    [ -d "$mirror" ] || fail "--mirror: $mirror is no directory"
    "$here/root_only.sh" "$mirror" || fail "nothing was changed"
fi
if [ -n "$repository" ]; then
    [ -r "$password" ] || fail "--restore needs --password-file, a file that can be read"
    [ -z "$environment" ] || [ -r "$environment" ] || fail "--environment-file: $environment cannot be read"
elif [ -e /etc/qhub/restore.json ]; then
    fail "this machine is being restored and that is not complete: say --restore again"
fi

salt_before=$(readlink /opt/qhub/salt || true)
say "Installing Salt"
"$here/install.sh" "$here/requirements.lock" "$mirror"

install -d -m 0755 /etc/qhub "$generated" "$generated/files"
install -d -m 0700 "$site" "$generated/pillar"
if [ -n "$repository" ]; then
    say "Restoring who this master is"
    "$here/apt_get.py" install --yes --quiet=2 --no-install-recommends restic >/dev/null
    "$checkout/formulas/backup/files/qhub-backup" seed "$repository" "$password" "$snapshot" ${environment:+"$environment"}
    address=$(/opt/qhub/salt/bin/python "$here/cluster_master.py" address "$site/cluster.sls" "$checkout/pillar/cluster.sls")
    ip -4 -oneline address show | grep -F " $address/" >/dev/null ||
        fail "workers know the master as $address, which is no address of this machine: give it that one and run me again"
fi
ln -sfn "$checkout" /etc/qhub/checkout
if [ ! -e "$site/cluster.sls" ]; then
    [ -n "$address" ] || address=$(ip -4 route get 192.0.2.1 2>/dev/null | sed -n 's/.* src \([0-9.]*\).*/\1/p')
    [ -n "$address" ] || fail "no default route: say --address"
    [ -n "$network" ] || network=$(ip -4 route show scope link | awk -v a="$address" '$0 ~ "src " a "( |$)" {print $1; exit}')
    [ -n "$network" ] || fail "$address is on no network of this machine: say --network"
    say "Writing $site/cluster.sls"
    sed -e "s|^    address: .*|    address: $address|" -e "s|^  network: .*|  network: $network|" \
        -e "s|^  mirror: .*|  mirror: ${mirror:-null}|" "$checkout/pillar/cluster.sls" >"$site/cluster.sls"
fi

say "Generating the secrets that are missing"
python3 "$here/secrets.py" "$generated/pillar"

id=$(/opt/qhub/salt/bin/python "$here/cluster_master.py" id "$site/cluster.sls" "$checkout/pillar/cluster.sls")
# The first steps run without a master; the same states keep everything so afterwards.
solo=$(mktemp -d)
trap 'rm -rf "$solo"' EXIT
cat >"$solo/minion" <<YAML
file_client: local
id: $id
root_dir: /
cachedir: $solo/cache
pki_dir: $solo/pki
log_file: $solo/log
file_roots: {base: [/etc/qhub/checkout/salt, /etc/qhub/checkout/formulas, $generated/files]}
pillar_roots: {base: [$site, /etc/qhub/checkout/pillar, $generated/pillar]}
module_dirs: [/etc/qhub/checkout/salt]
ext_pillar: [{qhub: {}}]
lazy_loader_strict_matching: true
YAML
say "Starting Salt's master and the minion beside it"
salt-call --config-dir "$solo" --retcode-passthrough --state-output=terse --state-verbose=false --log-level=error \
    state.apply bootstrap.master

if [ -n "$repository" ]; then
    say "Restoring the data, and applying the master's states"
    salt-run --state-output=mixed --state-verbose=false --log-level=error state.orchestrate orch.restore
    touch "$ready"
    say "The master is restored, and its workers are back"
    exit 0
fi

if [ -e "$ready" ]; then
    say "Waiting for Salt"
    if [ "$(readlink /opt/qhub/salt)" != "$salt_before" ]; then
        systemctl restart salt-master salt-minion
    fi
    # The states may have left it a restart to come.
    timeout 60 sh -c 'while systemctl list-units --type=timer | grep -q "systemctl restart salt-"; do sleep 0.5; done'
    timeout 60 sh -c "until salt --timeout=5 '$id' test.ping; do sleep 1; done" >/dev/null 2>&1
    say "Salt and the secrets are those of this checkout. What else is new:"
    printf '   %s\n' "salt-run upgrade.plan" "salt-run state.orchestrate orch.upgrade"
    exit 0
fi

say "Applying the master's states"
salt-call --retcode-passthrough --state-output=terse --state-verbose=false --log-level=error state.apply
touch "$ready"

say "The master is ready. To add a worker:"
cat <<TEXT
   1. put this key into root's authorized_keys on it, and its host key into root's known_hosts here:
      $(cat /root/.ssh/id_ed25519.pub)
   2. name it in $site/nodes.sls (see $checkout/pillar/nodes.sls)
   3. salt-ssh NAME state.apply bootstrap.minion

   Keep a copy of /etc/qhub/backup/password away from this machine, with where backups go (backup.repository): without them
   no backup can be read.
TEXT
if sshd -T 2>/dev/null | grep -qx 'passwordauthentication yes'; then
    echo
    echo "   Port 22 of this machine takes passwords, as neither root nor a member of the group sudo has an SSH key. Put yours"
    echo "   into ~/.ssh/authorized_keys, and: salt-call state.apply sshd"
fi
