# JupyterHub, on the master. It listens on loopback, behind the front door, and has no rights of its own: what it does in
# Slurm, qhub-notebooks does as the person; what it wants of the front door, qhub-hub-routes checks.
{% from "jupyterhub/map.jinja" import jupyterhub %}
{% from "jupyterlab/map.jinja" import jupyterlab %}
{% from "conda_store/map.jinja" import conda_store %}
{% from "traefik/map.jinja" import traefik %}
{% from "postgresql/macros.jinja" import database %}
{% from "artifacts/macros.jinja" import environment %}
{% set cluster = pillar.cluster %}
{% set public = "https://" ~ cluster.public_name %}
{# Nodes reach the Hub through the front door, by a name that its certificate has. #}
{% set inside = cluster.master.id ~ "." ~ cluster.domain if traefik.certificate.source == "internal" else cluster.public_name %}
{% set bundle = "/etc/ssl/certs/ca-certificates.crt" %}
{% set settings = {
  "public_url": public,
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
{% set people = {} %}
{% for name, user in pillar.users.items() if not user.get("locked") and user.get("role") != "viewer" %}
{% do people.update({name: user.uid}) %}
{% endfor %}
{% set first, last = jupyterhub.notebook_ports.split("-") %}

include:
  - artifacts
  - jupyterlab
  - postgresql
  - traefik

{{ environment("JupyterHub is here", "jupyterhub") }}

JupyterHub's user exists:
  user.present:
    - name: jupyterhub
    - system: true
    - usergroup: true
    - home: /var/lib/jupyterhub
    - createhome: false
    - shell: /usr/sbin/nologin
    - fullname: JupyterHub

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

JupyterHub knows the people:
  file.managed:
    - name: /etc/jupyterhub/people.json
    - contents: {{ {"cluster": cluster.name, "people": people} | json | json }}
    - mode: '0644'
    - require:
      - file: JupyterHub's configuration directory exists
    - require_in:
      - service: JupyterHub is running

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
    - name: /usr/local/lib/qhub-jupyterhub/qhub_hub
    - source: salt://jupyterhub/files/qhub_hub
    - file_mode: '0644'
    - dir_mode: '0755'
    - clean: true
    - exclude_pat: '*__pycache__*'

{% for name in ("qhub-notebooks", "qhub-hub-routes") %}
{{ name }} is installed:
  file.managed:
    - name: /usr/local/sbin/{{ name }}
    - source: salt://jupyterhub/files/{{ name }}
    - mode: '0755'
{% endfor %}

{% for name in ("qhub-notebooks.socket", "qhub-notebooks@.service", "qhub-hub-routes.path") %}
Unit {{ name }} is in place:
  file.managed:
    - name: /etc/systemd/system/{{ name }}
    - source: salt://jupyterhub/files/{{ name }}
    - mode: '0644'
{% endfor %}

Unit qhub-hub-routes.service is in place:
  file.managed:
    - name: /etc/systemd/system/qhub-hub-routes.service
    - source: salt://jupyterhub/files/qhub-hub-routes.service.jinja
    - template: jinja
    - context: {network: {{ cluster.network | json }}, first: {{ first }}, last: {{ last }}}
    - mode: '0644'

JupyterHub gets jobs submitted:
  service.running:
    - name: qhub-notebooks.socket
    - enable: true
    - require:
      - file: qhub-notebooks is installed
      - user: JupyterHub's user exists
      - file: Unit qhub-notebooks@.service is in place
      - file: JupyterHub knows the people
    - watch:
      - file: Unit qhub-notebooks.socket is in place

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
    - name: qhub-hub-routes.path
    - enable: true
    - require:
      - file: qhub-hub-routes is installed
      - file: Unit qhub-hub-routes.service is in place
      - file: Routes to servers have a file
    - watch:
      - file: Unit qhub-hub-routes.path is in place

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
      - service: JupyterHub gets jobs submitted
      - service: JupyterHub gets routes
      - service: Traefik is running
    - watch:
      - cmd: JupyterHub is here
      - file: JupyterHub's settings are in place
      - file: JupyterHub's additions are in place
      - file: JupyterHub's unit is in place
