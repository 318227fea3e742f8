# What a worker needs for notebook servers: JupyterLab is in the shared software directory, beside what a
# notebook's job runs before and after the server.
{% from "jupyterhub/map.jinja" import jupyterhub %}
{% from "firewall/macros.jinja" import allow %}

include:
  - firewall

{% for name in ("qhub-job-environment", "qhub-notebook-failed") %}
Program {{ name }} is installed:
  file.managed:
    - name: /usr/local/libexec/{{ name }}
    - source: salt://jupyterhub/files/{{ name }}
    - mode: '0755'
    - makedirs: true
{% endfor %}

{{ allow("notebooks", "master", tcp=[jupyterhub.notebook_ports]) }}
