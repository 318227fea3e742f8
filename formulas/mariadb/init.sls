# MariaDB server. Each service that uses it makes its own database and user (see slurm/database.sls).
{% from "base/macros.jinja" import confined %}
{% from "mariadb/map.jinja" import mariadb %}
{% set quarter = [grains.mem_total // 1024 * 256, 256] | max %}
{% set config = dict({"innodb_buffer_pool_size": quarter ~ "M"}, **mariadb.config) %}

MariaDB is configured:
  file.managed:
    - name: /etc/mysql/mariadb.conf.d/99-qhub.cnf
    - contents:
      - '[mariadbd]'
      {% for key, value in config | dictsort if value is not none %}
      - {{ (key ~ " = " ~ value) | json }}
      {% endfor %}
    - makedirs: true
    - mode: '0644'

MariaDB is installed:
  pkg.installed:
    - pkgs: {{ mariadb.packages | json }}
    - install_recommends: false
    - require:
      - file: MariaDB is configured

MariaDB comes back by itself:
  file.managed:
    - name: /etc/systemd/system/{{ mariadb.service }}.service.d/qhub.conf
    - contents: |
        [Service]
        Restart=always
        RestartSec=2
    - makedirs: true
    - mode: '0644'

# It compiles regular expressions in memory, and keeps its buffers from being swapped out.
{{ confined(mariadb.service, "MariaDB is running", {
  "CapabilityBoundingSet": "CAP_IPC_LOCK CAP_NET_BIND_SERVICE", "MemoryDenyWriteExecute": none, "ProcSubset": none,
  "ProtectSystem": "full", "RemoveIPC": none, "SystemCallFilter": ["@system-service", "~@privileged"], "UMask": none,
}) }}

MariaDB is running:
  service.running:
    - name: {{ mariadb.service }}
    - enable: true
    - require:
      - file: MariaDB comes back by itself
    - watch:
      - pkg: MariaDB is installed
      - file: MariaDB is configured
