#!/usr/bin/env bash
# Check that nobody but root can change a directory whose contents root runs or installs.
#
#   root_only.sh DIRECTORY
#
# Checks everything in the directory and each directory above it, and fails with the first path that somebody else owns
# or may write to.
set -euo pipefail

top=$(readlink -e "$1")

refuse() {
    echo "$1 can be changed by others than root, and root runs what is in $top: $2" >&2
    exit 1
}

# apt-get download gives debs/partial in a mirror to its own user. Nothing is read from there.
found=$(find "$top" -path "$top/debs/partial" -prune -o ! -type l \( ! -uid 0 -o -perm /022 \) -print -quit)
[ -z "$found" ] || refuse "$found" "chown -R root:root $top && chmod -R go-w $top"
above=$top
while [ "$above" != / ]; do
    above=$(dirname "$above")
    # In a directory with the sticky bit, such as /tmp, nobody else can rename an entry of root's.
    [ -z "$(find "$above" -maxdepth 0 \( ! -uid 0 -o -perm /022 ! -perm -1000 \))" ] ||
        refuse "$above" "move it to a directory such as /srv"
done
