# Dask-Gateway, on the master: the gateway and its proxy, on loopback, behind the front door, without rights of their own.
# What they do in Slurm, qhub-jobs does as the person (formulas/jobs).
{% from "dask_gateway/map.jinja" import dask_gateway %}
{% from "slurm/map.jinja" import slurm %}
{% from "firewall/macros.jinja" import local %}
{% from "traefik/macros.jinja" import routes, inside, people_name %}
{% from "artifacts/macros.jinja" import environment %}
{% set public = "https://" ~ pillar.cluster.public_name %}
{% set settings = {"inside_url": "https://" ~ inside, "public_url": public, "people_name": people_name,
                   "job_ports": slurm.worker.job_ports, "master_address": pillar.cluster.master.address} %}
{% do settings.update(dask_gateway) %}

include:
  - artifacts
  - firewall
  - jobs
  - jupyterhub
  - traefik

{{ environment("Dask-Gateway is here", "dask_gateway") }}

Dask-Gateway's user exists:
  user.present:
    - name: dask
    - system: true
    - usergroup: true
    - groups: [qhub-jobs]
    - home: /var/lib/dask-gateway
    - createhome: false
    - shell: /usr/sbin/nologin
    - fullname: Dask-Gateway
    - require:
      - group: Group of services that start jobs exists

Dask-Gateway's configuration directory exists:
  file.directory:
    - name: /etc/dask-gateway
    - mode: '0755'

Dask-Gateway's secrets are root's:
  file.directory:
    - name: /etc/dask-gateway/secrets
    - mode: '0700'
    - require:
      - file: Dask-Gateway's configuration directory exists
{% for name in ("database_key", "proxy_token", "hub_token") %}
Dask-Gateway's {{ name }} is in place:
  file.managed:
    - name: /etc/dask-gateway/secrets/{{ name }}
    - contents_pillar: secrets:dask_gateway_{{ name }}
    - mode: '0600'
    - show_changes: false
    - require:
      - file: Dask-Gateway's secrets are root's
{% endfor %}

Dask-Gateway's settings are in place:
  file.managed:
    - name: /etc/dask-gateway/settings.json
    - contents: {{ settings | json | json }}
    - mode: '0644'
    - require:
      - file: Dask-Gateway's configuration directory exists

Dask-Gateway is configured:
  file.managed:
    - name: /etc/dask-gateway/dask_gateway_config.py
    - source: salt://dask_gateway/files/dask_gateway_config.py
    - mode: '0644'
    - require:
      - file: Dask-Gateway's configuration directory exists

Dask-Gateway's additions are in place:
  file.recurse:
    - name: /usr/local/lib/qhub/qhub_dask
    - source: salt://dask_gateway/files/qhub_dask
    - file_mode: '0644'
    - dir_mode: '0755'
    - clean: true
    - exclude_pat: '*__pycache__*'

The Hub lets people to Dask-Gateway:
  file.managed:
    - name: /etc/jupyterhub/conf.d/dask-gateway.py
    - source: salt://dask_gateway/files/hub.py
    - mode: '0644'
    - require:
      - file: Directory conf.d of the site is here
      - file: The Hub has Dask-Gateway's token
    - watch_in:
      - service: JupyterHub is running

The Hub has Dask-Gateway's token:
  file.managed:
    - name: /etc/systemd/system/jupyterhub.service.d/dask-gateway.conf
    - contents: |
        # Written by Salt (formulas/dask_gateway).
        [Service]
        LoadCredential=dask_gateway_token:/etc/dask-gateway/secrets/hub_token
    - makedirs: true
    - mode: '0644'
    - require:
      - file: Dask-Gateway's hub_token is in place
    - watch_in:
      - service: JupyterHub is running

{% for unit in ("dask-gateway", "dask-gateway-proxy") %}
Unit {{ unit }} is in place:
  file.managed:
    - name: /etc/systemd/system/{{ unit }}.service
    - source: salt://dask_gateway/files/{{ unit }}.service
    - mode: '0644'
{% endfor %}

# Clusters are reached through it: it starts anew only for a new program or another token.
Dask-Gateway's proxy is running:
  service.running:
    - name: dask-gateway-proxy
    - enable: true
    - require:
      - user: Dask-Gateway's user exists
      - file: Dask-Gateway is configured
      - file: Dask-Gateway's settings are in place
      - file: Dask-Gateway's additions are in place
      - file: Dask-Gateway's database_key is in place
      - file: Dask-Gateway's hub_token is in place
    - watch:
      - cmd: Dask-Gateway is here
      - file: Dask-Gateway's proxy_token is in place
      - file: Unit dask-gateway-proxy is in place

Dask-Gateway is running:
  service.running:
    - name: dask-gateway
    - enable: true
    - require:
      - service: Dask-Gateway's proxy is running
      - service: Services get jobs started
    - watch:
      - cmd: Dask-Gateway is here
      - file: Dask-Gateway is configured
      - file: Dask-Gateway's settings are in place
      - file: Dask-Gateway's additions are in place
      - file: Dask-Gateway's database_key is in place
      - file: Dask-Gateway's proxy_token is in place
      - file: Dask-Gateway's hub_token is in place
      - file: Unit dask-gateway is in place
      - file: Services' way to it is installed

{{ local("dask-gateway", {8010: ["dask", "traefik"], 8011: ["traefik"], 8012: ["traefik"], 8081: ["dask"]}) }}

{# Dashboards are behind the proxy, everything else is the gateway's own: no path leads to a dashboard past its owner. #}
{{ routes("dask-gateway", {
  "http": {
    "routers": {
      "dask-gateway": {"rule": "PathPrefix(`/gateway/api/`) || PathRegexp(`^/gateway/dashboards/(sign-in|signed-in|enter)$`)", "entryPoints": ["websecure"],
                       "service": "dask-gateway", "middlewares": ["dask-gateway-path"]},
      "dask-gateway-dashboards": {"rule": "PathPrefix(`/gateway/clusters/`)", "entryPoints": ["websecure"], "service": "dask-gateway-dashboards",
                                  "middlewares": ["dask-gateway-owner", "dask-gateway-anonymous", "people-servers"]},
    },
    "middlewares": {
      "dask-gateway-path": {"stripPrefix": {"prefixes": ["/gateway"]}},
      "dask-gateway-owner": {"forwardAuth": {"address": "http://127.0.0.1:8010/dashboards/allowed"}},
      "dask-gateway-anonymous": {"headers": {"customRequestHeaders": {"Cookie": "", "Authorization": ""}}},
    },
    "services": {
      "dask-gateway": {"loadBalancer": {"servers": [{"url": "http://127.0.0.1:8010"}]}},
      "dask-gateway-dashboards": {"loadBalancer": {"servers": [{"url": "http://127.0.0.1:8011"}]}},
    },
  },
  "tcp": {
    "routers": {"dask-gateway": {
      "rule": "HostSNIRegexp(`^daskgateway-.+$`)", "entryPoints": ["dask"], "service": "dask-gateway", "tls": {"passthrough": true},
    }},
    "services": {"dask-gateway": {"loadBalancer": {"servers": [{"address": "127.0.0.1:8012"}]}}},
  },
}) }}
