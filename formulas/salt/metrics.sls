# What Prometheus asks the Salt master's daemon.
{% from "salt/map.jinja" import salt_settings %}
{% from "firewall/macros.jinja" import local %}
{% from "prometheus/macros.jinja" import scrape %}

include:
  - firewall
  - prometheus

{{ local("salt-metrics", {salt_settings.metrics_port: ["prometheus"]}) }}

{{ scrape("salt", {"static_configs": [{"targets": ["127.0.0.1:" ~ salt_settings.metrics_port]}]}) }}
