# MariaDB server. Each service that uses it makes its own database and user (see slurm/database.sls).
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
        {%- if not config.get("skip-networking") %}
        AmbientCapabilities=CAP_NET_BIND_SERVICE
        CapabilityBoundingSet=CAP_NET_BIND_SERVICE
        {%- endif %}
    - makedirs: true
    - mode: '0644'

MariaDB is running:
  service.running:
    - name: {{ mariadb.service }}
    - enable: true
    - require:
      - file: MariaDB comes back by itself
    - watch:
      - pkg: MariaDB is installed
      - file: MariaDB is configured
