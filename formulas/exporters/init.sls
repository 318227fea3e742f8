# Prometheus's exporters of the databases, each as a user that may look and nothing else, and of what people see.
{% from "exporters/map.jinja" import exporters %}
{% from "redis/map.jinja" import redis %}
{% from "slurm/map.jinja" import slurm %}
{% from "base/macros.jinja" import confined %}
{% from "firewall/macros.jinja" import local %}
{% from "prometheus/macros.jinja" import scrape %}
{% set master, public_name = pillar.cluster.master, pillar.cluster.public_name %}
{% set blackbox = exporters.blackbox %}

{# Where each finds what it tells of: over a socket, on which the Unix user is who it says. #}
{% set table = {
  "mysqld": {"config": "config.my-cnf"},
  "postgres": {"environment": {"DATA_SOURCE_NAME": "host=/run/postgresql user=postgres-exporter dbname=postgres sslmode=disable"}},
  "redis": {"options": {"redis.addr": "unix://" ~ redis.socket}, "groups": ["redis"]},
  "blackbox": {"config": "config.file", "everywhere": true},
} %}

include:
  - firewall
  - mariadb
  - postgresql
  - prometheus
  - redis

{% for name, row in table.items() %}
{% set settings = exporters[name] %}
{% set options = {"web.listen-address": "127.0.0.1:" ~ settings.port} %}
{% if row.get("config") %}{% do options.update({row.config: "/etc/prometheus/qhub-" ~ name}) %}{% endif %}
User {{ name }}-exporter exists:
  user.present:
    - name: {{ name }}-exporter
    - system: true
    - usergroup: true
    - groups: {{ row.get("groups", []) | json }}
    - home: /nonexistent
    - createhome: false
    - shell: /usr/sbin/nologin
    - fullname: Prometheus exporter
    {% if row.get("groups") %}
    - require:
      - pkg: Redis is installed
    {% endif %}

# Before the package, which starts it.
Exporter of {{ name }} is told how to run:
  file.managed:
    - name: /etc/systemd/system/prometheus-{{ name }}-exporter.service.d/qhub.conf
    - source: salt://exporters/files/unit.conf.jinja
    - template: jinja
    - context:
        program: prometheus-{{ name }}-exporter
        user: {{ name }}-exporter
        options: {{ dict(options, **dict(row.get("options", {}), **settings.options)) | json }}
        environment: {{ row.get("environment", {}) | json }}
        everywhere: {{ row.get("everywhere", false) | json }}
    - makedirs: true
    - mode: '0644'
    - require:
      - user: User {{ name }}-exporter exists

{{ confined("prometheus-" ~ name ~ "-exporter", "Exporter of " ~ name ~ " is running") }}

Exporter of {{ name }} is installed:
  pkg.installed:
    - pkgs: {{ settings.packages | json }}
    - install_recommends: false
    - require:
      - file: Exporter of {{ name }} is told how to run
      {% if row.get("config") %}
      - file: Exporter of {{ name }} is configured
      {% endif %}

Exporter of {{ name }} is running:
  service.running:
    - name: prometheus-{{ name }}-exporter
    - enable: true
    - watch:
      - pkg: Exporter of {{ name }} is installed
      - file: Exporter of {{ name }} is told how to run
      {% if row.get("config") %}
      - file: Exporter of {{ name }} is configured
      {% endif %}

{{ local(name ~ "-exporter", {settings.port: ["prometheus"]}) }}

{{ scrape("prober" if name == "blackbox" else name, {"static_configs": [{"targets": ["127.0.0.1:" ~ settings.port]}]}) }}
{% endfor %}

Exporter of mysqld is configured:
  file.managed:
    - name: /etc/prometheus/qhub-mysqld
    - contents: |
        # Written by Salt (formulas/exporters).
        [client]
        user = mysqld-exporter
        socket = /run/mysqld/mysqld.sock
    - makedirs: true
    - mode: '0644'

# It sees how the server and its replication are, and no table of anybody's.
MariaDB lets its exporter look:
  cmd.run:
    - name: >-
        mariadb --execute "CREATE OR REPLACE USER 'mysqld-exporter'@localhost IDENTIFIED VIA unix_socket WITH MAX_USER_CONNECTIONS 3;
        GRANT PROCESS, SLAVE MONITOR ON *.* TO 'mysqld-exporter'@localhost"
    - unless: runuser -u mysqld-exporter -- mariadb --user=mysqld-exporter --execute "SHOW ENGINE INNODB STATUS; SHOW ALL SLAVES STATUS"
    - require:
      - service: MariaDB is running
      - user: User mysqld-exporter exists
    - require_in:
      - service: Exporter of mysqld is running

{% set psql = "psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --dbname=postgres" %}
PostgreSQL lets its exporter look:
  cmd.run:
    - name: >-
        runuser -u postgres -- {{ psql }}
        --command='CREATE ROLE "postgres-exporter" LOGIN CONNECTION LIMIT 5' --command='GRANT pg_monitor TO "postgres-exporter"'
    - cwd: /
    - unless: runuser -u postgres-exporter -- {{ psql }} --command='SELECT * FROM pg_ls_waldir()' --output=/dev/null
    - require:
      - service: PostgreSQL is running
      - user: User postgres-exporter exists
    - require_in:
      - service: Exporter of postgres is running

# Certificates are verified as by every client on this machine: by the system's authorities, of which ours is one.
{% set way = {"timeout": blackbox.timeout ~ "s"} %}
{# As a browser asks: others are not sent to the page where one signs in, but away. #}
{% set modules = dict({
  "http": dict(way, prober="http", http={
    "fail_if_not_ssl": true, "preferred_ip_protocol": "ip4", "headers": {"Accept": "text/html, */*"},
  }),
  "tcp": dict(way, prober="tcp", tcp={"preferred_ip_protocol": "ip4"}),
  "tls": dict(way, prober="tcp", tcp={"preferred_ip_protocol": "ip4", "tls": true}),
  "ssh": dict(way, prober="tcp", tcp={"preferred_ip_protocol": "ip4", "query_response": [{"expect": "^SSH-2.0-"}]}),
}, **blackbox.modules) %}
Exporter of blackbox is configured:
  file.serialize:
    - name: /etc/prometheus/qhub-blackbox
    - dataset: {{ {"modules": modules} | json }}
    - serializer: yaml
    - makedirs: true
    - mode: '0644'

{# The front door takes every connection to 8022, whether there is a gateway behind it or not: that has to say something. #}
{% set pages = ["/", "/auth/realms/" ~ pillar.realm.name ~ "/.well-known/openid-configuration", "/monitoring/",
                "/gateway/api/health", "/conda-store/api/v1/"] %}
{% set targets = {
  "http": pages | map("regex_replace", "^", "https://" ~ public_name) | list,
  "tls": [public_name, pillar.cluster.people_name | replace("*", "any")] | unique | map("regex_replace", "$", ":443") | list,
  "ssh": [public_name ~ ":8022"],
  "tcp": [public_name ~ ":8786", master.address ~ ":" ~ slurm.config.SlurmctldPort, master.address ~ ":" ~ slurm.database.config.DbdPort],
} %}
{% set looks = [] %}
{% for name in modules %}
{% do looks.append({"labels": {"module": name}, "targets": targets.get(name, []) + blackbox.targets.get(name, [])}) %}
{% endfor %}
{{ scrape("blackbox", {
  "scrape_interval": blackbox.interval ~ "s",
  "scrape_timeout": (blackbox.timeout + 1) ~ "s",
  "metrics_path": "/probe",
  "static_configs": looks | selectattr("targets") | list,
  "relabel_configs": [
    {"source_labels": ["module"], "target_label": "__param_module"},
    {"source_labels": ["__address__"], "target_label": "__param_target"},
    {"source_labels": ["__address__"], "target_label": "instance"},
    {"target_label": "__address__", "replacement": "127.0.0.1:" ~ blackbox.port},
  ],
}) }}
