# conda-store, on the master: the server behind the front door, and the worker that builds. Nodes find what is built in
# the directory that they share, and install nothing.
{% from "conda_store/map.jinja" import conda_store %}
{% from "postgresql/map.jinja" import postgresql %}
{% from "redis/map.jinja" import redis %}
{% from "firewall/macros.jinja" import local %}
{% from "prometheus/macros.jinja" import scrape %}
{% from "postgresql/macros.jinja" import database, member %}
{% from "artifacts/macros.jinja" import environment %}
{% from "traefik/macros.jinja" import routes %}
{% set public = "https://" ~ pillar.cluster.public_name %}
{% set mirror = pillar.artifacts.mirror %}
{% set port = 5000 %}
{# Directories are served over HTTP: conda-store takes nothing else. #}
{% set here = "http://127.0.0.1:" ~ conda_store.channel_port %}
{% set directories = {} %}
{% set addresses = {} %}
{% set channels = conda_store.channels or ([mirror ~ "/channel"] if mirror else ["conda-forge"]) %}
{% for channel in channels + conda_store.allowed_channels if channel.startswith("/") %}
{%   set name = channel.rstrip("/").split("/")[-1] %}
{%   if directories.get(name, channel) != channel %}
{{ raise("conda_store.channels: " ~ channel ~ " is not allowed: its last part is another one's") }}
{%   endif %}
{%   do directories.update({name: channel}) %}
{%   do addresses.update({channel: here ~ "/" ~ name}) %}
{% endfor %}
{% set settings = dict(conda_store, **{
    "public_url": public,
    "realm_url": public ~ "/auth/realms/" ~ pillar.realm.name,
    "redis_socket": redis.socket,
    "port": port,
    "channels": [],
    "allowed_channels": [],
}) %}
{% for key, listed in {"channels": channels, "allowed_channels": conda_store.allowed_channels}.items() %}
{%   for channel in listed %}{% do settings[key].append(addresses.get(channel, channel)) %}{% endfor %}
{% endfor %}
{% set people = {} %}
{% for user in salt["qhub_realm.representation"]().users if user.enabled and user.username in pillar.users %}
{%   do people.update({user.username: user.groups}) %}
{% endfor %}

include:
  - artifacts
  - base
  - firewall
  - postgresql
  - prometheus
  - redis
  - traefik

{{ environment("conda-store is here", "conda_store") }}

# The server has the secrets, the worker builds. Steps of a build run as users without names, one for each namespace
# (files/lib/conda-build).
{% for user, name in (("conda-store", "conda-store"), ("conda-worker", "conda-store's worker")) %}
User {{ user }} exists:
  user.present:
    - name: {{ user }}
    - system: true
    - usergroup: true
    - home: /var/lib/{{ user }}
    - createhome: false
    - shell: /usr/sbin/nologin
    - fullname: {{ name }}
{% endfor %}

{{ database("conda-store") }}

{{ member("conda-worker", "conda-store") }}

# What conda wants to see of an installation of its own.
conda has a history:
  file.managed:
    - name: /usr/local/lib/qhub-conda-store/root/conda-meta/history
    - replace: false
    - makedirs: true
    - mode: '0644'

# The directory above is root's: its owner could put a link in the place of a directory that a state changes as root.
{% for name, user, group, mode in (
    ("", "root", "root", "0755"),
    ("/store", "conda-worker", "conda-worker", "0755"),
    ("/environments", "conda-worker", "conda-worker", "0755"),
    ("/jupyter", "conda-worker", "conda-worker", "0755"),
    ("/artifacts", "conda-worker", "conda-store", "0750"),
    ("/caches", "root", "root", "0755"),
) %}
Directory{{ name }} of conda-store is in place:
  file.directory:
    - name: {{ conda_store.directory }}{{ name }}
    - user: {{ user }}
    - group: {{ group }}
    - mode: '{{ mode }}'
    - makedirs: true
    - require:
      - user: User conda-store exists
      - user: User conda-worker exists
    - require_in:
      - cmd: Worker owns what it changes
{% endfor %}

# Builds of a time when server and worker were one user stay that user's: no build runs as conda-store, and none changes
# them. Their package cache was everybody's, so that nothing of it is used.
{% set of_the_server %}find {{ conda_store.directory }} \( -path '{{ conda_store.directory }}/store/*/*/*' -o -path {{ conda_store.directory }}/caches
-o -path {{ conda_store.directory }}/packages \) -prune -o -user conda-store{% endset %}
{% set of_the_server = of_the_server | replace("\n", " ") %}
Worker owns what it changes:
  cmd.run:
    - name: {{ (of_the_server ~ " -exec chown --no-dereference conda-worker: {} +") | json }}
    - onlyif: {{ (of_the_server ~ " -print -quit | grep -q .") | json }}

Package cache that all namespaces shared is removed:
  file.absent:
    - name: {{ conda_store.directory }}/packages

conda-store's secrets are root's:
  file.directory:
    - name: /etc/conda-store/secrets
    - mode: '0700'
    - makedirs: true
    - dir_mode: '0755'
{% for name in ("client_secret", "token_key", "salt_token") %}
conda-store's {{ name }} is in place:
  file.managed:
    - name: /etc/conda-store/secrets/{{ name }}
    - contents_pillar: secrets:conda_store_{{ name }}
    - mode: '0600'
    - show_changes: false
    - require:
      - file: conda-store's secrets are root's
    - watch_in:
      - service: conda-store's server is running
{% endfor %}

conda-store knows the people:
  file.managed:
    - name: /etc/conda-store/people.json
    - contents: {{ people | json | json }}
    - makedirs: true
    - mode: '0644'
    - require_in:
      - service: conda-store's server is running

conda-store's settings are in place:
  file.managed:
    - name: /etc/conda-store/settings.json
    - contents: {{ settings | json | json }}
    - makedirs: true
    - mode: '0644'

conda-store is configured:
  file.managed:
    - name: /etc/conda-store/conda_store_config.py
    - source: salt://conda_store/files/conda_store_config.py
    - makedirs: true
    - mode: '0644'

Its conda is configured:
  file.managed:
    - name: /etc/conda-store/condarc
    - source: salt://conda_store/files/condarc.jinja
    - template: jinja
    - context: {{ {"channels": settings.channels, "channel_alias": conda_store.channel_alias} | json }}
    - makedirs: true
    - mode: '0644'

conda-store's additions are in place:
  file.recurse:
    - name: /usr/local/lib/qhub-conda-store/qhub_conda
    - source: salt://conda_store/files/lib/qhub_conda
    - file_mode: '0644'
    - dir_mode: '0755'
    - clean: true
    - exclude_pat: '*__pycache__*'

{% for name in ("conda", "conda-store", "conda-build") %}
Program {{ name }} is in place:
  file.managed:
    - name: /usr/local/lib/qhub-conda-store/{{ name }}
    - source: salt://conda_store/files/lib/{{ name }}
    - makedirs: true
    - mode: '0755'
{% endfor %}

{% if directories %}
Unit conda-store-channels.service is in place:
  file.managed:
    - name: /etc/systemd/system/conda-store-channels.service
    - source: salt://conda_store/files/conda-store-channels.service.jinja
    - template: jinja
    - context: {port: {{ conda_store.channel_port }}, directories: {{ directories | json }}}
    - mode: '0644'

Channels in directories are served:
  service.running:
    - name: conda-store-channels
    - enable: true
    - watch:
      - file: Unit conda-store-channels.service is in place
{% endif %}

{% for kind in ("online", "offline") %}
{%   for name, source in (("conda-build-" ~ kind ~ ".socket", "conda-build.socket"), ("conda-build-" ~ kind ~ "@.service", "conda-build@.service")) %}
Unit {{ name }} is in place:
  file.managed:
    - name: /etc/systemd/system/{{ name }}
    - source: salt://conda_store/files/{{ source }}.jinja
    - template: jinja
    - context: {{ {"kind": kind, "directory": conda_store.directory} | json }}
    - mode: '0644'
{%   endfor %}
{% endfor %}

Unit condabuild.slice is in place:
  file.managed:
    - name: /etc/systemd/system/condabuild.slice
    - source: salt://conda_store/files/condabuild.slice.jinja
    - template: jinja
    - context: {{ {"memory": conda_store.worker_memory} | json }}
    - mode: '0644'

{% for kind, user, memory in (("server", "conda-store", conda_store.server_memory), ("worker", "conda-worker", none), ("retention", "conda-worker", 512)) %}
Unit conda-store-{{ kind }}.service is in place:
  file.managed:
    - name: /etc/systemd/system/conda-store-{{ kind }}.service
    - source: salt://conda_store/files/conda-store.service.jinja
    - template: jinja
    - context: {{ {"kind": kind, "user": user, "memory": memory, "directory": conda_store.directory, "database": postgresql.service} | json }}
    - mode: '0644'
{% endfor %}

# systemd reads its files again for a unit that Salt restarts, not for what a socket starts.
systemd knows the units of builds:
  cmd.run:
    - name: systemctl daemon-reload
    - onlyif: >-
        systemctl show --property=NeedDaemonReload --value condabuild.slice conda-build-online.socket conda-build-offline.socket
        conda-build-online@0.service conda-build-offline@0.service | grep -q yes
    - require:
      - file: Unit condabuild.slice is in place
      {% for kind in ("online", "offline") %}
      - file: Unit conda-build-{{ kind }}.socket is in place
      - file: Unit conda-build-{{ kind }}@.service is in place
      {% endfor %}

{% for kind in ("online", "offline") %}
Builds can be asked for {{ kind }}:
  service.running:
    - name: conda-build-{{ kind }}.socket
    - enable: true
    - require:
      - cmd: systemd knows the units of builds
      - file: Program conda-build is in place
      - user: User conda-worker exists
    - watch:
      - file: Unit conda-build-{{ kind }}.socket is in place
    - require_in:
      - service: conda-store's worker is running
{% endfor %}

{% for kind in ("server", "worker") %}
conda-store's {{ kind }} is running:
  service.running:
    - name: conda-store-{{ kind }}
    - enable: true
    - require:
      - cmd: Database conda-store exists
      - service: Redis is running
      - file: conda has a history
      - file: Runtimes are told whom the system trusts
      - cmd: Worker owns what it changes
      {% if kind == "worker" %}
      - cmd: Role conda-worker has the rights of conda-store
      - service: conda-store's server is running
      {% endif %}
    - watch:
      - cmd: conda-store is here
      - file: conda-store's settings are in place
      - file: conda-store is configured
      - file: Its conda is configured
      - file: conda-store's additions are in place
      - file: Program conda is in place
      - file: Program conda-store is in place
      - file: Unit conda-store-{{ kind }}.service is in place
{% endfor %}

conda-store's timer of retention is in place:
  file.managed:
    - name: /etc/systemd/system/conda-store-retention.timer
    - contents: |
        # Written by Salt (formulas/conda_store).
        [Unit]
        Description=Removes what conda-store need not keep
        [Timer]
        OnCalendar=daily
        RandomizedDelaySec=1h
        Persistent=true
        [Install]
        WantedBy=timers.target
    - mode: '0644'

conda-store keeps what it has to and no more:
  service.running:
    - name: conda-store-retention.timer
    - enable: true
    - require:
      - file: Unit conda-store-retention.service is in place
      - service: conda-store's worker is running
    - watch:
      - file: conda-store's timer of retention is in place

# Its metrics, and what it tells of its worker, are for this machine.
{# conda-store asks for no token of a form beside the cookie, so a browser's request from another origin is refused. #}
{{ routes("conda-store", {
  "http": {
    "routers": {
      "conda-store": {"rule": "PathPrefix(`/conda-store`) && !PathRegexp(`^/conda-store/(metrics|celery)/?$`)", "entryPoints": ["websecure"],
                      "service": "conda-store"},
      "conda-store-sign-in": {"rule": "PathPrefix(`/conda-store/login`) || PathPrefix(`/conda-store/oauth_callback`)", "priority": 1000,
                              "entryPoints": ["websecure"], "service": "conda-store", "middlewares": ["auth-ratelimit"]},
      "conda-store-other-sites": {"rule": "PathPrefix(`/conda-store`) && HeaderRegexp(`Sec-Fetch-Site`, `^(same|cross)-site$`)"
                                          ~ " && !Method(`GET`) && !Method(`HEAD`)",
                                  "priority": 2000, "entryPoints": ["websecure"], "service": "conda-store", "middlewares": ["conda-store-no-other-site"]},
    },
    "middlewares": {"conda-store-no-other-site": {"ipAllowList": {"sourceRange": ["255.255.255.255"], "rejectStatusCode": 403}}},
    "services": {"conda-store": {"loadBalancer": {"servers": [{"url": "http://127.0.0.1:" ~ port}]}}},
  },
}) }}

{# Builds run as the users of their namespaces: FIRST_UID and NAMESPACES in files/lib/conda-build. #}
{{ local("conda-store", {port: ["traefik", "prometheus"], conda_store.channel_port: ["4000000000-4033554431"]}) }}

{{ scrape("conda-store", {"metrics_path": "/conda-store/metrics", "static_configs": [{"targets": ["127.0.0.1:" ~ port]}]}) }}
