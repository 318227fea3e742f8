# The nodes that Prometheus asks: Prometheus reads the file again when it changes.
{% from "node_exporter/map.jinja" import node_exporter %}
{% set targets = [] %}
{% for name, member in pillar.members | dictsort %}
{% do targets.append({"targets": [member.address ~ ":" ~ node_exporter.port], "labels": {"instance": name}}) %}
{% endfor %}

Prometheus knows the nodes:
  file.serialize:
    - name: /etc/prometheus/nodes.json
    - dataset: {{ targets | json }}
    - serializer: json
    - makedirs: true
    - mode: '0644'
