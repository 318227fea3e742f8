# Prometheus's exporter of Slurm, on the master's loopback.
{% from "slurm_exporter/map.jinja" import slurm_exporter %}
{% from "firewall/macros.jinja" import local %}
{% from "prometheus/macros.jinja" import scrape %}

include:
  - firewall
  - prometheus
  - slurm.common

Slurm exporter's packages are installed:
  pkg.installed:
    - pkgs: {{ slurm_exporter.packages | json }}
    - install_recommends: false
    - require:
      - file: munge stays off

Slurm exporter's user exists:
  user.present:
    - name: slurm-exporter
    - system: true
    - usergroup: true
    - home: /nonexistent
    - createhome: false
    - shell: /usr/sbin/nologin
    - fullname: Slurm exporter

Slurm exporter is installed:
  file.recurse:
    - name: /usr/local/lib/qhub/qhub_slurm_exporter
    - source: salt://slurm_exporter/files/qhub_slurm_exporter
    - file_mode: '0644'
    - dir_mode: '0755'
    - clean: true
    - exclude_pat: '*__pycache__*'

Slurm exporter has a unit:
  file.managed:
    - name: /etc/systemd/system/slurm-exporter.service
    - source: salt://slurm_exporter/files/slurm-exporter.service.jinja
    - template: jinja
    - context: {settings: {{ slurm_exporter | json }}}
    - mode: '0644'

Slurm exporter is running:
  service.running:
    - name: slurm-exporter
    - enable: true
    - require:
      - user: Slurm exporter's user exists
    - watch:
      - pkg: Slurm exporter's packages are installed
      - file: Slurm exporter is installed
      - file: Slurm exporter has a unit

{{ local("slurm-exporter", {slurm_exporter.port: ["prometheus"]}) }}

{{ scrape("slurm", {
  "scrape_interval": slurm_exporter.interval ~ "s",
  "static_configs": [{"targets": ["127.0.0.1:" ~ slurm_exporter.port]}],
}) }}
