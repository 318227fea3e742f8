# Prometheus's node exporter.
{% from "node_exporter/map.jinja" import node_exporter %}
{% from "firewall/macros.jinja" import allow, local %}
{% set address = pillar.cluster.master.address if "master" in pillar.roles else pillar.nodes[grains.id].address %}

include:
  - firewall

{{ allow("node_exporter", "master", tcp=[node_exporter.port]) }}
{{ local("node_exporter", {node_exporter.port: ["prometheus"]}) }}

Node exporter is configured:
  file.managed:
    - name: /etc/default/prometheus-node-exporter
    - source: salt://node_exporter/files/arguments.jinja
    - template: jinja
    - context: {address: {{ address | json }}, settings: {{ node_exporter | json }}}
    - mode: '0644'

Node exporter may listen on its port:
  file.managed:
    - name: /etc/systemd/system/{{ node_exporter.service }}.service.d/qhub.conf
    - contents: |
        # Written by Salt (formulas/node_exporter).
        [Service]
        AmbientCapabilities=CAP_NET_BIND_SERVICE
        CapabilityBoundingSet=CAP_NET_BIND_SERVICE
    - makedirs: true
    - mode: '0644'

Node exporter is installed:
  pkg.installed:
    - pkgs: {{ node_exporter.packages | json }}
    - install_recommends: false
    - require:
      - file: Node exporter is configured
      - file: Node exporter may listen on its port

Node exporter is running:
  service.running:
    - name: {{ node_exporter.service }}
    - enable: true
    - watch:
      - pkg: Node exporter is installed
      - file: Node exporter is configured
      - file: Node exporter may listen on its port
