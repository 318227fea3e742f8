{% from "nfs/map.jinja" import nfs %}
{% from "base/macros.jinja" import confined %}
{% from "firewall/macros.jinja" import allow, local %}
{% set server = nfs.server %}
{% set cluster = pillar.get("cluster", {}) %}
{% set listen = server.listen or cluster.get("master", {}).get("address") %}

{# Every export is for these addresses and no other. `members` are the machines whose key the master accepted. The server
   itself is no client: people who have a shell there must not reach another person's files past the file system's modes. #}
{% set addresses = [] %}
{% for name, member in pillar.get("members", {}).items() if name != grains.id %}
{%   if not member.address | is_ip or "/" in member.address %}
{{ raise("members: " ~ member.address ~ " is not an address of one machine: nothing is exported to it") }}
{%   endif %}
{%   do addresses.append(member.address) %}
{% endfor %}
{% set exports = {} %}
{% for name, export in nfs.exports | dictsort if export %}
{%   do exports.update({name: export}) %}
{% endfor %}
{% set context = {"exports": exports, "addresses": addresses | sort, "server": server, "listen": listen} %}

include:
  - nfs.masked
  - firewall

{% for other in ["kernel", "ganesha"] if other != server.implementation and salt["service.available"](server[other].service) %}
The {{ other }} NFS server is off:
  service.dead:
    - name: {{ server[other].service }}
    - enable: false
    {% if server.implementation %}
    - require_in:
      - service: NFS server is running
    {% endif %}
{% endfor %}

{% if server.implementation %}
{% set chosen = server[server.implementation] %}
{% set kernel = server.implementation == "kernel" %}
{% set exports_file = "/etc/exports.d/qhub.exports" if kernel else "/etc/ganesha/exports.conf" %}

{{ allow("nfs", "cluster", tcp=[2049]) }}
{{ local("nfs", {2049: []}) }}

{% for name, export in exports.items() %}
Directory of export {{ name }} exists:
  file.directory:
    - name: {{ export.path }}
    {% if export.get("mode") %}
    - mode: '{{ export.mode }}'
    {% endif %}
    - makedirs: true
    - require_in:
      - cmd: NFS server answers to the members
      - service: NFS server is running
{% endfor %}

{% set directories = exports.values() | map(attribute="path") | sort %}
Program that mounts shared directories nosuid is installed:
  file.managed:
    - name: /usr/local/sbin/qhub-nosuid
    - source: salt://nfs/files/qhub-nosuid
    - mode: '0755'

Unit qhub-nosuid.service is in place:
  file.managed:
    - name: /etc/systemd/system/qhub-nosuid.service
    - source: salt://nfs/files/qhub-nosuid.service.jinja
    - template: jinja
    - context: {{ {"directories": directories, "service": chosen.service} | json }}
    - mode: '0644'

Shared directories are mounted nosuid at boot:
  service.enabled:
    - name: qhub-nosuid
    - require:
      - file: Program that mounts shared directories nosuid is installed
      - file: Unit qhub-nosuid.service is in place

Shared directories are mounted nosuid:
  cmd.run:
    - name: systemctl daemon-reload && systemctl restart qhub-nosuid.service
    - unless: qhub-nosuid --check {{ directories | join(" ") }}
    - require:
      - service: Shared directories are mounted nosuid at boot
      {% for name in exports %}
      - file: Directory of export {{ name }} exists
      {% endfor %}

NFS server is installed:
  pkg.installed:
    - pkgs: {{ chosen.packages | json }}
    - require:
      - sls: nfs.masked

{% if not kernel %}
{# Nothing that gives it mounts of its own: it finds the file system of an export among the mounts that it sees, and takes the
   first of each. It acts as the user who asks, and sets the bits that users set. #}
{% set mounts = {} %}
{% for key in ("PrivateDevices", "PrivateTmp", "ProcSubset", "ProtectControlGroups", "ProtectHome", "ProtectKernelLogs",
               "ProtectKernelModules", "ProtectKernelTunables", "ProtectProc", "ProtectSystem") %}
{%   do mounts.update({key: none}) %}
{% endfor %}
{{ confined(chosen.service, "NFS server is running", dict(mounts, **{
  "AmbientCapabilities": none, "RemoveIPC": none, "RestrictSUIDSGID": none, "UMask": none,
  "CapabilityBoundingSet": "CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_NET_BIND_SERVICE CAP_SETGID CAP_SETUID",
  "RestrictAddressFamilies": "AF_INET AF_INET6 AF_NETLINK AF_UNIX",
  "SystemCallFilter": ["@system-service", "open_by_handle_at quotactl"],
})) }}
{% endif %}

NFS server is configured:
  file.managed:
    - name: {{ "/etc/nfs.conf.d/qhub.conf" if kernel else "/etc/ganesha/ganesha.conf" }}
    - source: salt://nfs/files/{{ "nfs.conf" if kernel else "ganesha.conf" }}.jinja
    - template: jinja
    - context: {{ context | json }}
    - mode: '0644'
    - makedirs: true
    - require:
      - pkg: NFS server is installed

NFS exports are declared:
  file.managed:
    - name: {{ exports_file }}
    - source: salt://nfs/files/{{ "exports" if kernel else "exports.conf" }}.jinja
    - template: jinja
    - context: {{ context | json }}
    - mode: '0644'
    - makedirs: true
    - require:
      - pkg: NFS server is installed

# Before the service, so that only a server that already runs is asked to read again: clients stay connected.
NFS server answers to the members:
  cmd.run:
    - name: {{ "exportfs -ra && " if kernel }}systemctl reload {{ chosen.service }}
    - onlyif:
      - systemctl --quiet is-active {{ chosen.service }}
      # The server was started, or reloaded, before the file was written; or the last reload failed.
      - >-
        find {{ exports_file }} -newermt "$(systemctl show --timestamp=us -P StateChangeTimestamp {{ chosen.service }})" | grep --quiet . ||
        systemctl show -P ReloadResult {{ chosen.service }} | grep --quiet --invert-match --line-regexp success
    - require:
      - file: NFS exports are declared

{% if not kernel %}
NFS server is started again when it ends:
  file.managed:
    - name: /etc/systemd/system/{{ chosen.service }}.service.d/qhub.conf
    - contents: |
        [Service]
        Restart=always
        RestartSec=1
    - makedirs: true
    - mode: '0644'
    - require_in:
      - service: NFS server is running
{% endif %}

NFS server is running:
  service.running:
    - name: {{ chosen.service }}
    - enable: true
    - require:
      - cmd: Shared directories are mounted nosuid
      - cmd: NFS server answers to the members
    - watch:
      - file: NFS server is configured

# Ganesha's unit counts as started even if the server ends right away.
NFS server listens:
  cmd.run:
    - name: until ss --no-header --listening --tcp --numeric 'sport = :2049' | grep -q .; do sleep 0.2; done
    - timeout: 20
    - unless: ss --no-header --listening --tcp --numeric 'sport = :2049' | grep -q .
    - require:
      - service: NFS server is running
{% endif %}
