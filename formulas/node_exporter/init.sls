# Prometheus's node exporter.
{% from "node_exporter/map.jinja" import node_exporter %}
{% from "base/macros.jinja" import confined %}
{% from "firewall/macros.jinja" import allow, local %}
{% set address = pillar.cluster.master.address if "master" in pillar.roles else pillar.nodes[grains.id].address %}

include:
  - firewall

{{ allow("node_exporter", "master", tcp=[node_exporter.port]) }}
{{ local("node_exporter", {node_exporter.port: ["prometheus"]}) }}

# Not the package's, which Prometheus and Alertmanager have as well.
User node-exporter exists:
  user.present:
    - name: node-exporter
    - system: true
    - usergroup: true
    - home: /nonexistent
    - createhome: false
    - shell: /usr/sbin/nologin
    - fullname: Prometheus exporter

# Root's programs leave metrics there, so no service may write to it or to the directory above.
Directory of metrics in files exists:
  file.directory:
    - name: /var/lib/qhub-metrics
    - user: root
    - group: root
    - mode: '0755'

# It needs to see what it measures: all of /proc, every mount, and the clock's state.
{{ confined(node_exporter.service, "Node exporter is running", {
  "User": "node-exporter", "Group": "node-exporter",
  "ProcSubset": none, "ProtectClock": none, "ProtectHome": "read-only", "ProtectProc": none,
  "RestrictAddressFamilies": "AF_INET AF_INET6 AF_NETLINK AF_UNIX",
  "SystemCallFilter": ["@system-service", "~@privileged @resources", "adjtimex clock_adjtime"],
}) }}
    - require:
      - user: User node-exporter exists

Node exporter is configured:
  file.managed:
    - name: /etc/default/prometheus-node-exporter
    - source: salt://node_exporter/files/arguments.jinja
    - template: jinja
    - context: {address: {{ address | json }}, settings: {{ node_exporter | json }}}
    - mode: '0644'

Node exporter is installed:
  pkg.installed:
    - pkgs: {{ node_exporter.packages | json }}
    - install_recommends: false
    - require:
      - file: Node exporter is configured
      - file: Unit {{ node_exporter.service }} is confined

Node exporter is running:
  service.running:
    - name: {{ node_exporter.service }}
    - enable: true
    - require:
      - file: Directory of metrics in files exists
    - watch:
      - pkg: Node exporter is installed
      - file: Node exporter is configured
