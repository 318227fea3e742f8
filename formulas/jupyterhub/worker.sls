# What a worker needs for notebook servers: JupyterLab is in the shared software directory, so only to be reached.
{% from "jupyterhub/map.jinja" import jupyterhub %}
{% from "firewall/macros.jinja" import allow %}

include:
  - firewall

{{ allow("notebooks", "master", tcp=[jupyterhub.notebook_ports]) }}
