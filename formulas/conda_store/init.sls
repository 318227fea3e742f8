# conda-store, on the master: the server behind the front door, and the worker that builds. Nodes find what is built in
# the directory that they share, and install nothing.
{% from "conda_store/map.jinja" import conda_store %}
{% from "postgresql/map.jinja" import postgresql %}
{% from "redis/map.jinja" import redis %}
{% from "firewall/macros.jinja" import local %}
{% from "prometheus/macros.jinja" import scrape %}
{% from "postgresql/macros.jinja" import database %}
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

conda-store's user exists:
  user.present:
    - name: conda-store
    - system: true
    - usergroup: true
    - home: /var/lib/conda-store
    - createhome: false
    - shell: /usr/sbin/nologin
    - fullname: conda-store

{{ database("conda-store") }}

# What conda wants to see of an installation of its own.
{% for name in ("", "/root", "/root/conda-meta") %}
conda-store's state{{ name }} is its own:
  file.directory:
    - name: /var/lib/conda-store{{ name }}
    - user: conda-store
    - group: conda-store
    - mode: '0700'
    - require:
      - user: conda-store's user exists
{% endfor %}

conda has a history:
  file.managed:
    - name: /var/lib/conda-store/root/conda-meta/history
    - replace: false
    - user: conda-store
    - group: conda-store
    - mode: '0600'
    - require:
      - file: conda-store's state/root/conda-meta is its own

{% for name, mode in (("", "0755"), ("/store", "0755"), ("/environments", "0755"), ("/jupyter", "0755"), ("/packages", "0700"), ("/artifacts", "0700")) %}
conda-store's directory{{ name }} is here:
  file.directory:
    - name: {{ conda_store.directory }}{{ name }}
    - user: conda-store
    - group: conda-store
    - mode: '{{ mode }}'
    - makedirs: true
    - require:
      - user: conda-store's user exists
    - require_in:
      - service: conda-store's server is running
      - service: conda-store's worker is running
{% endfor %}

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
    - context: {{ {"directory": conda_store.directory, "channels": settings.channels, "channel_alias": conda_store.channel_alias} | json }}
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

{% for name in ("conda", "conda-store") %}
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

{% for kind, memory in (("server", conda_store.server_memory), ("worker", conda_store.worker_memory), ("retention", 512)) %}
Unit conda-store-{{ kind }}.service is in place:
  file.managed:
    - name: /etc/systemd/system/conda-store-{{ kind }}.service
    - source: salt://conda_store/files/conda-store.service.jinja
    - template: jinja
    - context:
        kind: {{ kind }}
        memory: {{ memory }}
        directory: {{ conda_store.directory }}
        database: {{ postgresql.service }}
    - mode: '0644'
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
      {% if kind == "worker" %}
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
{{ routes("conda-store", {
  "http": {
    "routers": {
      "conda-store": {"rule": "PathPrefix(`/conda-store`) && !PathRegexp(`^/conda-store/(metrics|celery)/?$`)", "entryPoints": ["websecure"],
                      "service": "conda-store"},
      "conda-store-sign-in": {"rule": "PathPrefix(`/conda-store/login`) || PathPrefix(`/conda-store/oauth_callback`)", "priority": 1000,
                              "entryPoints": ["websecure"], "service": "conda-store", "middlewares": ["auth-ratelimit"]},
    },
    "services": {"conda-store": {"loadBalancer": {"servers": [{"url": "http://127.0.0.1:" ~ port}]}}},
  },
}) }}

{{ local("conda-store", {port: ["traefik", "prometheus"], conda_store.channel_port: ["conda-store"]}) }}

{{ scrape("conda-store", {"metrics_path": "/conda-store/metrics", "static_configs": [{"targets": ["127.0.0.1:" ~ port]}]}) }}
