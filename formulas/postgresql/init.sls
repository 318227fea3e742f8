# PostgreSQL server. Each service that uses it makes its own database and role (see macros.jinja).
{% from "postgresql/map.jinja" import postgresql %}
{% set memory = grains.mem_total %}
{% set config = dict({
    "shared_buffers": [[memory // 16, 64] | max, 1024] | min ~ "MB",
    "effective_cache_size": [memory // 4, 128] | max ~ "MB",
}, **postgresql.config) %}

# Before the package, which makes the cluster: not by the locale that Salt happens to run with.
PostgreSQL's cluster is to hold text in UTF-8:
  file.managed:
    - name: /etc/postgresql-common/createcluster.d/qhub.conf
    - contents: initdb_options = '--data-checksums --encoding=UTF8 --locale=C.UTF-8'
    - makedirs: true
    - mode: '0644'

PostgreSQL is installed:
  pkg.installed:
    - pkgs: {{ postgresql.packages | json }}
    - install_recommends: false
    - require:
      - file: PostgreSQL's cluster is to hold text in UTF-8

PostgreSQL is configured:
  file.managed:
    - name: {{ postgresql.config_dir }}/conf.d/qhub.conf
    - contents:
      - '# Written by Salt (formulas/postgresql).'
      {% for key, value in config | dictsort if value is not none %}
      - {{ (key ~ " = '" ~ value | string | replace("'", "''") ~ "'") | json }}
      {% endfor %}
    - mode: '0644'
    - require:
      - pkg: PostgreSQL is installed

PostgreSQL asks who is there:
  file.managed:
    - name: {{ postgresql.config_dir }}/pg_hba.conf
    - contents:
      - '# Written by Salt (formulas/postgresql).'
      - local all all peer
      - host all all 127.0.0.1/32 scram-sha-256
    - user: postgres
    - group: postgres
    - mode: '0640'
    - require:
      - pkg: PostgreSQL is installed

PostgreSQL comes back by itself:
  file.managed:
    - name: /etc/systemd/system/postgresql@.service.d/qhub.conf
    - contents: |
        [Unit]
        StartLimitIntervalSec=0
        [Service]
        Restart=always
        RestartSec=1
        # From root, pg_ctlcluster would become this user without the right to listen on a low port.
        User=postgres
        Group=postgres
        AmbientCapabilities=CAP_NET_BIND_SERVICE
        CapabilityBoundingSet=CAP_NET_BIND_SERVICE
    - makedirs: true
    - mode: '0644'

PostgreSQL is running:
  service.running:
    - name: {{ postgresql.service }}
    - enable: true
    - require:
      - file: PostgreSQL comes back by itself
    - watch:
      - pkg: PostgreSQL is installed
      - file: PostgreSQL is configured
      - file: PostgreSQL asks who is there

Program that makes databases is installed:
  file.managed:
    - name: /usr/local/sbin/qhub-database
    - source: salt://postgresql/files/qhub-database
    - mode: '0755'
