# Prometheus: asks every service and every node how it is, and raises alerts.
{% from "prometheus/map.jinja" import prometheus %}
{% from "firewall/macros.jinja" import local %}
{% from "prometheus/macros.jinja" import scrape %}
{% set every = prometheus.interval ~ "s" %}
{% set config = salt["slsutil.merge"]({
    "global": {"scrape_interval": every, "evaluation_interval": every, "scrape_timeout": [prometheus.interval, 10] | min ~ "s"},
    "rule_files": ["/etc/prometheus/rules.d/*.yml"],
    "scrape_config_files": ["/etc/prometheus/scrape.d/*.yml"],
    "alerting": {"alertmanagers": [{"static_configs": [{"targets": ["127.0.0.1:9093"]}]}]},
}, prometheus.config) %}

include:
  - firewall
  - prometheus.targets

# Beside the package's files, and before the package, which starts the server.
Prometheus is told how to run:
  file.managed:
    - name: /etc/systemd/system/prometheus.service.d/qhub.conf
    - contents: |
        # Written by Salt (formulas/prometheus).
        [Unit]
        StartLimitIntervalSec=0
        [Service]
        ExecStart=
        ExecStart=/usr/bin/prometheus --config.file=/etc/prometheus/qhub.yml \
            --web.listen-address=127.0.0.1:9090 \
            --web.external-url=https://{{ pillar.cluster.public_name }}/monitoring/ --web.route-prefix=/ \
            --storage.tsdb.path=/var/lib/prometheus/metrics2 \
            --storage.tsdb.retention.time={{ prometheus.retention.time }} --storage.tsdb.retention.size={{ prometheus.retention.size }} \
            --log.level=warn
        Restart=always
        RestartSec=2
        AmbientCapabilities=CAP_NET_BIND_SERVICE
        CapabilityBoundingSet=CAP_NET_BIND_SERVICE
        # The right to listen on a low port is one in the machine's own user namespace.
        PrivateUsers=false
    - makedirs: true
    - mode: '0644'

Prometheus is configured:
  file.serialize:
    - name: /etc/prometheus/qhub.yml
    - dataset: {{ config | json }}
    - serializer: yaml
    - makedirs: true
    - mode: '0644'

Prometheus is installed:
  pkg.installed:
    - pkgs: {{ prometheus.packages | json }}
    - install_recommends: false
    - require:
      - file: Prometheus is told how to run
      - file: Prometheus is configured

# What it remembers shows what people run, and where.
Prometheus's data are its own:
  file.directory:
    - name: /var/lib/prometheus/metrics2
    - user: prometheus
    - group: prometheus
    - mode: '0700'
    - require:
      - pkg: Prometheus is installed

Program that checks what is scraped is installed:
  file.managed:
    - name: /usr/local/sbin/qhub-check-scrape
    - source: salt://prometheus/files/qhub-check-scrape
    - mode: '0755'

Rules of alerts are in place:
  file.recurse:
    - name: /etc/prometheus/rules.d
    - source: salt://prometheus/files/rules
    - file_mode: '0644'
    - dir_mode: '0755'
    - clean: true
    - exclude_pat: site.yml
    - require:
      - pkg: Prometheus is installed

Site's own rules are in place:
  file.serialize:
    - name: /etc/prometheus/rules.d/site.yml
    - dataset: {{ {"groups": prometheus.rules} | json }}
    - serializer: yaml
    - mode: '0644'
    - check_cmd: promtool check rules
    - require:
      - file: Rules of alerts are in place

{{ local("prometheus", {9090: ["prometheus"]}) }}

{{ scrape("prometheus", {"static_configs": [{"targets": ["127.0.0.1:9090"]}]}) }}

{# It watches the file, and looks by itself where the machine has no more watches to give. #}
{{ scrape("node", {"file_sd_configs": [{"files": ["/etc/prometheus/nodes.json"], "refresh_interval": "5s"}]},
          require=[{"file": "Prometheus knows the nodes"}]) }}

# All of it is here: in a highstate (roles/master.sls) what no formula declares is removed.
Prometheus scrapes nothing else:
  file.directory:
    - name: /etc/prometheus/scrape.d
    - clean: false
    - mode: '0755'

Prometheus is running:
  service.running:
    - name: prometheus
    - enable: true
    - watch:
      - pkg: Prometheus is installed
      - file: Prometheus is told how to run

Prometheus has read its configuration:
  service.running:
    - name: prometheus
    - reload: true
    - require:
      - service: Prometheus is running
    - watch:
      - file: Prometheus is configured
      - file: Rules of alerts are in place
      - file: Site's own rules are in place
      - file: Prometheus scrapes nothing else
