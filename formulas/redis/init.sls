# Redis server. Who is in the group redis reaches it, by its socket.
{% from "redis/map.jinja" import redis %}
{% set config = dict({
    "port": 0,
    "unixsocket": redis.socket,
    "unixsocketperm": 770,
    "dir": "/var/lib/redis",
    "logfile": '',
    "supervised": "systemd",
    "daemonize": "no",
}, **redis.config) %}

# Beside the package's file, and before the package, which starts the server.
Redis is configured:
  file.managed:
    - name: /etc/redis/qhub.conf
    - contents:
      - '# Written by Salt (formulas/redis).'
      {% for key, value in config | dictsort if value is not none %}
      - {{ (key ~ " " ~ (value if value != "" else '""')) | json }}
      {% endfor %}
    - makedirs: true
    - mode: '0644'

Redis's unit has our configuration:
  file.managed:
    - name: /etc/systemd/system/redis-server.service.d/qhub.conf
    - contents: |
        # Written by Salt (formulas/redis).
        [Unit]
        StartLimitIntervalSec=0
        [Service]
        ExecStart=
        ExecStart=/usr/bin/redis-server /etc/redis/qhub.conf
        PIDFile=
        Restart=always
        RestartSec=1
        IPAddressDeny=any
    - makedirs: true
    - mode: '0644'

Redis is installed:
  pkg.installed:
    - pkgs: {{ redis.packages | json }}
    - install_recommends: false
    - require:
      - file: Redis is configured
      - file: Redis's unit has our configuration

Redis is running:
  service.running:
    - name: redis-server
    - enable: true
    - watch:
      - pkg: Redis is installed
      - file: Redis is configured
      - file: Redis's unit has our configuration
