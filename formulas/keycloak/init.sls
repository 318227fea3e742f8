# Keycloak, on PostgreSQL, for nobody but this machine: people come through the front door.
{% from "keycloak/map.jinja" import keycloak %}
{% from "postgresql/map.jinja" import postgresql %}
{% from "firewall/macros.jinja" import local %}
{% from "prometheus/macros.jinja" import scrape %}
{% from "postgresql/macros.jinja" import database %}
{% from "artifacts/macros.jinja" import directory, here, only %}
{% from "traefik/macros.jinja" import routes %}
{% if keycloak.heap + 400 > keycloak.memory %}
{{ raise("keycloak.heap: " ~ keycloak.heap ~ " is not allowed: keycloak.memory (" ~ keycloak.memory ~ ") less 400 at most") }}
{% endif %}
{% set home = directory("keycloak") %}
{% set config = dict({
    "db": "postgres",
    "db-url": "jdbc:postgresql://127.0.0.1:" ~ postgresql.config.port ~ "/keycloak",
    "db-username": "keycloak",
    "cache": "local",
    "http-enabled": true,
    "http-host": "127.0.0.1",
    "http-port": 8080,
    "http-relative-path": "/auth",
    "http-management-host": "127.0.0.1",
    "http-management-port": 9000,
    "health-enabled": true,
    "metrics-enabled": true,
    "event-metrics-user-enabled": true,
    "hostname": "https://" ~ pillar.cluster.public_name ~ "/auth",
    "proxy-headers": "xforwarded",
    "proxy-trusted-addresses": "127.0.0.1",
    "truststore-paths": "/etc/ssl/certs/ca-certificates.crt",
}, **keycloak.config) %}

include:
  - artifacts
  - base
  - firewall
  - postgresql
  - prometheus
  - traefik

Keycloak's Java is installed:
  pkg.installed:
    - pkgs: {{ keycloak.packages | json }}
    - install_recommends: false

Keycloak's user exists:
  user.present:
    - name: keycloak
    - system: true
    - usergroup: true
    - home: /var/lib/keycloak
    - createhome: false
    - shell: /usr/sbin/nologin
    - fullname: Keycloak

Keycloak's data directory exists:
  file.directory:
    - name: /var/lib/keycloak
    - user: keycloak
    - group: keycloak
    - mode: '0700'
    - require:
      - user: Keycloak's user exists

{% for id, name, secret in (
    ("Keycloak's database password is in place", "database.password", "keycloak_database_password"),
    ("Salt's secret in Keycloak is in place", "salt.secret", "keycloak_salt_secret"),
) %}
{{ id }}:
  file.managed:
    - name: /etc/keycloak/{{ name }}
    - contents_pillar: secrets:{{ secret }}
    - mode: '0600'
    - makedirs: true
    - dir_mode: '0755'
    - show_changes: false
{% endfor %}

{{ database("keycloak", "/etc/keycloak/database.password") }}

{% for program in ("qhub-keycloak", "qhub-keycloak-upgrade") %}
{{ program }} is installed:
  file.managed:
    - name: /usr/local/sbin/{{ program }}
    - source: salt://keycloak/files/{{ program }}
    - mode: '0755'
{% endfor %}

{{ here("Keycloak is here", "keycloak") }}

Keycloak is configured:
  file.managed:
    - name: {{ home }}/conf/keycloak.conf
    - source: salt://keycloak/files/keycloak.conf.jinja
    - template: jinja
    - context: {config: {{ config | json }}}
    - mode: '0644'
    - require:
      - cmd: Keycloak is here

Keycloak keeps its data outside of its program:
  file.symlink:
    - name: {{ home }}/data
    - target: /var/lib/keycloak
    - require:
      - cmd: Keycloak is here

# Options that count at the start only; with any other it is built anew. What runs from there is stopped before, as it
# would lose its classes; another version runs on meanwhile. Without Java's second compiler it takes half the time.
{% set built_in = "grep -vE '^(#|log-level|db-(pool|url|username)|hostname|http-(enabled|host|port|management-(host|port)|max|pool)|proxy|truststore)' "
    ~ home ~ "/conf/keycloak.conf" %}
Keycloak is built:
  cmd.run:
    - name: >-
        if [ "$(readlink /opt/qhub/keycloak)" = {{ home }} ]; then systemctl stop keycloak; fi;
        JAVA_OPTS_APPEND=-XX:TieredStopAtLevel=1 {{ home }}/bin/kc.sh build && {{ built_in }} > {{ home }}/conf/built
    - unless: {{ built_in }} | cmp --silent - {{ home }}/conf/built
    - require:
      - pkg: Keycloak's Java is installed
      - file: Keycloak is configured
      - file: Keycloak keeps its data outside of its program

Keycloak is of the listed version:
  cmd.run:
    - name: qhub-keycloak-upgrade {{ home }} {{ keycloak.backups.directory }} {{ keycloak.backups.keep }}
    - unless: test "$(readlink /opt/qhub/keycloak)" = {{ home }}
    - require:
      - cmd: Keycloak is built
      - cmd: Database keycloak exists
      - file: qhub-keycloak-upgrade is installed

Keycloak's unit is in place:
  file.managed:
    - name: /etc/systemd/system/keycloak.service
    - source: salt://keycloak/files/keycloak.service.jinja
    - template: jinja
    - context: {keycloak: {{ keycloak | json }}, database: {{ postgresql.service | json }}}
    - mode: '0644'

Keycloak is running:
  service.running:
    - name: keycloak
    - enable: true
    - require:
      - file: Keycloak's data directory exists
      - cmd: Database keycloak exists
    - watch:
      - pkg: Keycloak's Java is installed
      - file: Keycloak's database password is in place
      - file: Keycloak's unit is in place
      - file: Keycloak is configured
      - cmd: Keycloak is built
      - cmd: Keycloak is of the listed version
      - cmd: System trusts the certificates

Keycloak is ready:
  cmd.run:
    - name: qhub-keycloak wait {{ keycloak.start_timeout }}
    - unless: qhub-keycloak wait 0
    - require:
      - service: Keycloak is running
      - file: qhub-keycloak is installed

{{ only("Keycloak's older versions are removed", "keycloak", "Keycloak is running", require=[{"cmd": "Keycloak is ready"}]) }}

Salt may administer Keycloak:
  cmd.run:
    - name: qhub-keycloak grant {{ pillar.realm.name }}
    - unless: qhub-keycloak check {{ pillar.realm.name }}
    - require:
      - cmd: Keycloak is ready
      - file: Salt's secret in Keycloak is in place

# Its health and its metrics are on the management port, and so not here.
{% set address = "https://" ~ pillar.cluster.public_name ~ "/auth/" %}
{% set router = {"rule": "PathPrefix(`/auth`)", "entryPoints": ["websecure"], "service": "keycloak", "middlewares": ["auth-ratelimit"]} %}
{% set middlewares = {} %}
{% if not keycloak.master_realm_outside %}
{# Where Keycloak would send people to the realm master, they go to theirs. #}
{% do router.update({
    "rule": "PathPrefix(`/auth`) && !PathRegexp(`^/auth/(admin/realms|realms)/master(/|$)`)",
    "middlewares": ["auth-ratelimit", "keycloak-account", "keycloak-console"],
}) %}
{% for name, path, target in (
    ("account", "/auth/?", "realms/" ~ pillar.realm.name ~ "/account/"),
    ("console", "/auth/admin(/|/master|/master/.*)?", "admin/" ~ pillar.realm.name ~ "/console/"),
) %}
{% do middlewares.update({"keycloak-" ~ name: {"redirectRegex": {"regex": "^https?://[^/]+" ~ path ~ "$", "replacement": address ~ target}}}) %}
{% endfor %}
{% endif %}
{{ routes("keycloak", {
  "http": {
    "routers": {"keycloak": router},
    "services": {"keycloak": {"loadBalancer": {"servers": [{"url": "http://127.0.0.1:8080"}]}}},
    "middlewares": middlewares,
  },
}) }}

{{ local("keycloak", {8080: ["traefik"], 9000: ["prometheus"], postgresql.config.port: ["keycloak"]}) }}

{{ scrape("keycloak", {"metrics_path": "/auth/metrics", "static_configs": [{"targets": ["127.0.0.1:9000"]}]}) }}
