# JupyterHub, on the master. It listens on loopback, behind the front door, and has no rights of its own: what it does in
# Slurm, qhub-jobs does as the person (formulas/jobs); what it wants of the front door, qhub-hub-routes checks.
{% from "jupyterhub/map.jinja" import jupyterhub %}
{% from "jupyterlab/map.jinja" import jupyterlab %}
{% from "firewall/macros.jinja" import local %}
{% from "prometheus/macros.jinja" import scrape, scrape_secret %}
{% from "traefik/macros.jinja" import inside, people_name, people_apart %}
{% from "conda_store/map.jinja" import conda_store %}
{% from "postgresql/macros.jinja" import database %}
{% from "artifacts/macros.jinja" import environment %}
{% set cluster = pillar.cluster %}
{% set public = "https://" ~ cluster.public_name %}
{% set bundle = "/etc/ssl/certs/ca-certificates.crt" %}
{% set settings = {
  "public_url": public,
  "people_name": people_name if people_apart else none,
  "hub_url": "https://" ~ inside,
  "realm_url": public ~ "/auth/realms/" ~ pillar.realm.name,
  "program": jupyterlab.directory ~ "/bin/qhub-notebook",
  "environment": {
    "SSL_CERT_FILE": bundle, "REQUESTS_CA_BUNDLE": bundle, "NODE_EXTRA_CA_CERTS": bundle,
    "JUPYTER_CONFIG_PATH": jupyterlab.directory ~ "/etc/jupyter",
  },
  "jupyter_path": jupyterlab.directory ~ "/share/jupyter",
  "environments": {"kernels": conda_store.directory ~ "/jupyter", "shared": conda_store.shared_namespace},
} %}
{% do settings.update(jupyterhub) %}
{% set first, last = jupyterhub.notebook_ports.split("-") %}

include:
  - artifacts
  - firewall
  - jobs
  - jupyterlab
  - postgresql
  - prometheus
  - traefik

{{ environment("JupyterHub is here", "jupyterhub") }}

JupyterHub's user exists:
  user.present:
    - name: jupyterhub
    - system: true
    - usergroup: true
    - groups: [qhub-jobs]
    - home: /var/lib/jupyterhub
    - createhome: false
    - shell: /usr/sbin/nologin
    - fullname: JupyterHub
    - require:
      - group: Group of services that start jobs exists

{{ database("jupyterhub") }}

JupyterHub's configuration directory exists:
  file.directory:
    - name: /etc/jupyterhub
    - mode: '0755'

JupyterHub's secrets are root's:
  file.directory:
    - name: /etc/jupyterhub/secrets
    - mode: '0700'
    - require:
      - file: JupyterHub's configuration directory exists
{% for name in ("client_secret", "cookie_secret", "crypt_key", "metrics_token") %}
JupyterHub's {{ name }} is in place:
  file.managed:
    - name: /etc/jupyterhub/secrets/{{ name }}
    - contents_pillar: secrets:jupyterhub_{{ name }}
    - mode: '0600'
    - show_changes: false
    - require:
      - file: JupyterHub's secrets are root's
    - watch_in:
      - service: JupyterHub is running
{% endfor %}

{% for name in ("conf.d", "templates") %}
Directory {{ name }} of the site is here:
  file.directory:
    - name: /etc/jupyterhub/{{ name }}
    - mode: '0755'
    - require:
      - file: JupyterHub's configuration directory exists
    - require_in:
      - service: JupyterHub is running
{% endfor %}

JupyterHub's settings are in place:
  file.managed:
    - name: /etc/jupyterhub/settings.json
    - contents: {{ settings | json | json }}
    - mode: '0644'
    - require:
      - file: JupyterHub's configuration directory exists

{% for name in ("jupyterhub_config.py", "job.sh.jinja") %}
JupyterHub's {{ name }} is in place:
  file.managed:
    - name: /etc/jupyterhub/{{ name }}
    - source: salt://jupyterhub/files/{{ name }}
    - mode: '0644'
    - require:
      - file: JupyterHub's configuration directory exists
    - watch_in:
      - service: JupyterHub is running
{% endfor %}

JupyterHub's additions are in place:
  file.recurse:
    - name: /usr/local/lib/qhub/qhub_hub
    - source: salt://jupyterhub/files/qhub_hub
    - file_mode: '0644'
    - dir_mode: '0755'
    - clean: true
    - exclude_pat: '*__pycache__*'

qhub-hub-routes is installed:
  file.managed:
    - name: /usr/local/sbin/qhub-hub-routes
    - source: salt://jupyterhub/files/qhub-hub-routes
    - mode: '0755'

Unit qhub-hub-routes.service is in place:
  file.managed:
    - name: /etc/systemd/system/qhub-hub-routes.service
    - source: salt://jupyterhub/files/qhub-hub-routes.service.jinja
    - template: jinja
    - context: {network: {{ cluster.network | json }}, first: {{ first }}, last: {{ last }}, people: {{ (people_name if people_apart else "") | json }}}
    - mode: '0644'

# What is in it, the Hub and qhub-hub-routes say.
Routes to servers have a file:
  file.managed:
    - name: /etc/traefik/dynamic/jupyterhub-servers.yml
    - contents: '{}'
    - replace: false
    - mode: '0644'
    - require:
      - file: Traefik is configured
    - require_in:
      - file: Traefik has no other routes

JupyterHub gets routes:
  service.running:
    - name: qhub-hub-routes
    - enable: true
    - require:
      - file: Routes to servers have a file
    - watch:
      - file: qhub-hub-routes is installed
      - file: Unit qhub-hub-routes.service is in place

JupyterHub's unit is in place:
  file.managed:
    - name: /etc/systemd/system/jupyterhub.service
    - source: salt://jupyterhub/files/jupyterhub.service
    - mode: '0644'

JupyterHub is running:
  service.running:
    - name: jupyterhub
    - enable: true
    - require:
      - cmd: Database jupyterhub exists
      - cmd: JupyterLab is here
      - file: Program that starts notebook servers is installed
      - service: Services get jobs started
      - service: JupyterHub gets routes
      - service: Traefik is running
    - watch:
      - cmd: JupyterHub is here
      - file: JupyterHub's settings are in place
      - file: JupyterHub's additions are in place
      - file: JupyterHub's unit is in place

{{ local("jupyterhub", {8081: ["jupyterhub", "traefik", "prometheus"], 8082: ["jupyterhub"]}) }}

{{ scrape_secret("jupyterhub", "jupyterhub_metrics_token") }}

{{ scrape("jupyterhub", {
  "metrics_path": "/hub/metrics",
  "authorization": {"credentials_file": "/etc/prometheus/secrets/jupyterhub"},
  "static_configs": [{"targets": ["127.0.0.1:8081"]}],
}, require=[{"file": "Prometheus has its secret for jupyterhub"}]) }}
