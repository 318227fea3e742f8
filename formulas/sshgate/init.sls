# The SSH gateway, on the master.
{% from "sshgate/map.jinja" import sshgate %}
{% from "firewall/macros.jinja" import local %}
{% from "prometheus/macros.jinja" import scrape %}
{% from "traefik/macros.jinja" import routes %}
{% from "artifacts/macros.jinja" import environment %}
{% set hub_api = sshgate.hub_api or "https://" ~ pillar.cluster.public_name ~ "/hub/api" %}
{% set uids = [pillar.cluster.ids.min, pillar.cluster.ids.max] %}
{% set settings = {
  "address": "127.0.0.1",
  "port": sshgate.port,
  "metrics_port": sshgate.metrics_port,
  "host_key": "/var/lib/sshgate/ssh_host_ed25519_key",
  "hub_api": hub_api,
  "hub_timeout": sshgate.hub_timeout,
  "hub_requests": sshgate.hub_requests,
  "hub_patience": sshgate.hub_patience,
  "recheck": sshgate.recheck,
  "start_timeout": sshgate.start_timeout,
  "connect_timeout": sshgate.connect_timeout,
  "uids": uids,
  "limits": sshgate.limits,
  "proxy_users": ["traefik"],
  "command": ["/usr/bin/sudo", "-n", "-u"],
  "wrapper": "/usr/local/libexec/qhub-sshgate-run",
} %}

include:
  - artifacts
  - firewall
  - prometheus
  - traefik

{{ routes("sshgate", {"tcp": {
  "routers": {"sshgate": {"rule": "HostSNI(`*`)", "entryPoints": ["ssh"], "service": "sshgate"}},
  "services": {"sshgate": {"loadBalancer": {"servers": [{"address": "127.0.0.1:" ~ sshgate.port}], "serversTransport": "sshgate"}}},
  "serversTransports": {"sshgate": {"dialTimeout": "5s", "proxyProtocol": {"version": 2}}},
}}) }}

SSH gateway's user exists:
  user.present:
    - name: sshgate
    - system: true
    - usergroup: true
    - home: /var/lib/sshgate
    - createhome: false
    - shell: /usr/sbin/nologin

SSH gateway's directory exists:
  file.directory:
    - name: /var/lib/sshgate
    - user: sshgate
    - group: sshgate
    - mode: '0700'
    - require:
      - user: SSH gateway's user exists

# Made once: clients remember it.
SSH gateway has a host key:
  cmd.run:
    - name: ssh-keygen -q -t ed25519 -N '' -C sshgate -f /var/lib/sshgate/ssh_host_ed25519_key
    - runas: sshgate
    - cwd: /
    - creates: /var/lib/sshgate/ssh_host_ed25519_key
    - require:
      - file: SSH gateway's directory exists

SSH gateway's configuration directory exists:
  file.directory:
    - name: /etc/sshgate
    - mode: '0755'

# What people are told to compare, and a line for their known_hosts. The gateway's user reads the key: in a directory of
# its own it could put a link to a file of root's.
{% set read = "runuser -u sshgate -- cat /var/lib/sshgate/ssh_host_ed25519_key.pub" %}
SSH gateway's fingerprint is shown:
  cmd.run:
    - name: >-
        {{ read }} | ssh-keygen -lf - > /etc/sshgate/fingerprint
        && {{ read }} | sed 's/^/[{{ pillar.cluster.public_name }}]:8022 /' > /etc/sshgate/known_hosts
    - unless: >-
        test "$(cat /etc/sshgate/fingerprint)" = "$({{ read }} | ssh-keygen -lf -)"
        && grep -qxF "[{{ pillar.cluster.public_name }}]:8022 $({{ read }})" /etc/sshgate/known_hosts
    - require:
      - cmd: SSH gateway has a host key
      - file: SSH gateway's configuration directory exists

SSH gateway is configured:
  file.serialize:
    - name: /etc/sshgate/sshgate.json
    - dataset: {{ settings | json }}
    - serializer: json
    - mode: '0644'
    - require:
      - file: SSH gateway's configuration directory exists

# Notebook jobs have the name that formulas/jupyterhub gives them.
Way into jobs is configured:
  file.serialize:
    - name: /etc/sshgate/job.json
    - dataset: {{ {"job_name": "jupyterhub", "uids": uids, "step": "/usr/local/libexec/qhub-sshgate-step"} | json }}
    - serializer: json
    - mode: '0644'
    - require:
      - file: SSH gateway's configuration directory exists

SSH gateway's packages are installed:
  pkg.installed:
    - pkgs: {{ sshgate.packages | json }}
    - install_recommends: false
    - require_in:
      - cmd: SSH gateway's Python is here

Way into jobs is installed:
  file.managed:
    - name: /usr/local/libexec/qhub-sshgate-run
    - source: salt://sshgate/files/qhub-sshgate-run
    - makedirs: true
    - mode: '0755'
    - require:
      - file: Way into jobs is configured

SSH gateway may start it as any of the people:
  file.managed:
    - name: /etc/sudoers.d/sshgate
    - source: salt://sshgate/files/sudoers
    - mode: '0440'
    - check_cmd: visudo --check --file
    - require:
      - pkg: SSH gateway's packages are installed
      - user: SSH gateway's user exists
      - file: Way into jobs is installed

SSH gateway is installed:
  file.recurse:
    - name: /usr/local/lib/qhub/sshgate
    - source: salt://sshgate/files
    - include_pat: '*.py'
    - clean: true
    - file_mode: '0644'
    - dir_mode: '0755'

SSH gateway has a unit:
  file.managed:
    - name: /etc/systemd/system/sshgate.service
    - source: salt://sshgate/files/sshgate.service
    - mode: '0644'

{{ environment("SSH gateway's Python is here", "sshgate") }}

SSH gateway is running:
  service.running:
    - name: sshgate
    - enable: true
    - require:
      - file: SSH gateway may start it as any of the people
      - cmd: SSH gateway has a host key
      - user: Traefik's user exists
    - watch:
      - cmd: SSH gateway's Python is here
      - file: SSH gateway is configured
      - file: SSH gateway is installed
      - file: SSH gateway has a unit

{{ local("sshgate", {sshgate.port: ["traefik"], sshgate.metrics_port: ["prometheus"]}) }}

{{ scrape("sshgate", {"static_configs": [{"targets": ["127.0.0.1:" ~ sshgate.metrics_port]}]}) }}
