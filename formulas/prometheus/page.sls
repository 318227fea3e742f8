# Prometheus's own page at /monitoring/, for those who may sign in: Apache httpd asks Keycloak who they are.
{% from "prometheus/map.jinja" import prometheus %}
{% from "firewall/macros.jinja" import local %}
{% from "traefik/macros.jinja" import routes %}
{% if pillar.monitoring.page == "prometheus" %}

include:
  - firewall
  - traefik

# Ours is another instance: the package's web server, on port 80, and the service that cleans a cache are not wanted.
{% for unit in ("apache2", "apache-htcacheclean") %}
Package's {{ unit }} cannot be started:
  file.symlink:
    - name: /etc/systemd/system/{{ unit }}.service
    - target: /dev/null
    - require_in:
      - pkg: Monitoring page's packages are installed

Package's {{ unit }} is not running:
  cmd.run:
    - name: systemctl stop {{ unit }}
    - onlyif: systemctl is-active --quiet {{ unit }}
    - require:
      - file: Package's {{ unit }} cannot be started
{% endfor %}

Monitoring page's packages are installed:
  pkg.installed:
    - pkgs: {{ prometheus.page.packages | json }}
    - install_recommends: false

Monitoring page's user exists:
  user.present:
    - name: qhub-page
    - system: true
    - usergroup: true
    - home: /nonexistent
    - createhome: false
    - shell: /usr/sbin/nologin

Monitoring page's configuration directory exists:
  file.directory:
    - name: /etc/qhub/page
    - user: root
    - group: root
    - mode: '0755'
    - makedirs: true

Monitoring page's secrets are in place:
  file.managed:
    - name: /etc/qhub/page/secrets.conf
    - contents: |
        OIDCClientSecret {{ pillar.secrets.grafana_client_secret }}
        OIDCCryptoPassphrase {{ pillar.secrets.monitoring_page_key }}
    - group: qhub-page
    - mode: '0640'
    - show_changes: false
    - require:
      - file: Monitoring page's configuration directory exists
      - user: Monitoring page's user exists

Monitoring page is configured:
  file.managed:
    - name: /etc/qhub/page/httpd.conf
    - source: salt://prometheus/files/httpd.conf.jinja
    - template: jinja
    - context:
        page: {{ prometheus.page | json }}
        public_name: {{ pillar.cluster.public_name | json }}
        realm: {{ pillar.realm.name | json }}
    - mode: '0644'
    - require:
      - file: Monitoring page's configuration directory exists

Monitoring page has a unit:
  file.managed:
    - name: /etc/systemd/system/qhub-page.service
    - source: salt://prometheus/files/qhub-page.service
    - mode: '0644'

Monitoring page is running:
  service.running:
    - name: qhub-page
    - enable: true
    - watch:
      - pkg: Monitoring page's packages are installed
      - file: Monitoring page's secrets are in place
      - file: Monitoring page is configured
      - file: Monitoring page has a unit

{{ local("monitoring", {9090: ["qhub-page"], prometheus.page.port: ["traefik"]}) }}

{# Signing in works by one name: who comes by another is sent there. #}
{% set paths, site = "(Path(`/monitoring`) || PathPrefix(`/monitoring/`))", pillar.cluster.public_name %}
{{ routes("monitoring", {"http": {
  "routers": {
    "monitoring": {"rule": paths ~ " && Host(`" ~ site ~ "`)", "entryPoints": ["websecure"], "service": "monitoring"},
    "monitoring-elsewhere": {"rule": paths, "entryPoints": ["websecure"], "service": "monitoring", "middlewares": ["monitoring-here"]},
  },
  "middlewares": {"monitoring-here": {"redirectRegex": {"regex": "^https?://[^/]+(.*)$", "replacement": "https://" ~ site ~ "${1}"}}},
  "services": {"monitoring": {"loadBalancer": {"servers": [{"url": "http://127.0.0.1:" ~ prometheus.page.port}]}}},
}}) }}
{% else %}

Prometheus's page is not running:
  service.dead:
    - name: qhub-page
    - enable: false
    - onlyif: test -e /etc/systemd/system/qhub-page.service

# It has the client's secret, which is still the valid one; a rotation would leave it as it was.
Prometheus's page has no secrets:
  file.absent:
    - name: /etc/qhub/page/secrets.conf
    - require:
      - service: Prometheus's page is not running
{% endif %}
