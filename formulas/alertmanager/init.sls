# Alertmanager.
{% from "alertmanager/map.jinja" import alertmanager %}
{% from "base/macros.jinja" import confined %}
{% from "firewall/macros.jinja" import local %}
{% from "prometheus/macros.jinja" import scrape %}
{% set mail, settings = alertmanager.mail, {} %}
{% if mail.to and not (mail.from and mail.smarthost) %}
{{ raise("alertmanager.mail: `to` needs `from`, an address, and `smarthost`, such as mail.example.org:587") }}
{% endif %}
{% set receiver = {"name": "site"} %}
{% if mail.to %}
{% set smtp = {"to": mail.to | join(", "), "from": mail.from, "smarthost": mail.smarthost, "require_tls": mail.require_tls,
               "auth_username": mail.username, "auth_password": mail.password, "send_resolved": true} %}
{% set given = {} %}
{% for key, value in smtp.items() if value is not none %}{% do given.update({key: value}) %}{% endfor %}
{% do receiver.update({"email_configs": [given]}) %}
{% endif %}
{% if alertmanager.webhooks %}
{% set hooks = [] %}
{% for url in alertmanager.webhooks %}{% do hooks.append({"url": url, "send_resolved": true}) %}{% endfor %}
{% do receiver.update({"webhook_configs": hooks}) %}
{% endif %}
{% set config = salt["slsutil.merge"]({
    "route": {
        "receiver": "site",
        "group_by": ["alertname"],
        "group_wait": alertmanager.group_wait ~ "s",
        "group_interval": alertmanager.group_interval ~ "s",
        "repeat_interval": alertmanager.repeat_interval ~ "s",
    },
    "receivers": [receiver],
}, alertmanager.config) %}

include:
  - firewall
  - prometheus

# Before the package, which starts the server.
Alertmanager is told how to run:
  file.managed:
    - name: /etc/systemd/system/{{ alertmanager.service }}.service.d/qhub.conf
    - contents: |
        # Written by Salt (formulas/alertmanager).
        [Unit]
        StartLimitIntervalSec=0
        [Service]
        ExecStart=
        ExecStart=/usr/bin/prometheus-alertmanager --config.file=/etc/prometheus/alertmanager-qhub.yml \
            --web.listen-address=127.0.0.1:9093 --cluster.listen-address= \
            --web.external-url=https://{{ pillar.cluster.public_name }}/monitoring/ --web.route-prefix=/ \
            --storage.path=/var/lib/prometheus/alertmanager --log.level=warn
        Restart=always
        RestartSec=2
    - makedirs: true
    - mode: '0644'

{{ confined(alertmanager.service, "Alertmanager is running", {"ReadWritePaths": "-/var/lib/prometheus/alertmanager"}) }}

Alertmanager is installed:
  pkg.installed:
    - pkgs: {{ alertmanager.packages | json }}
    - install_recommends: false
    - require:
      - file: Alertmanager is told how to run
      - file: Unit {{ alertmanager.service }} is confined

Alertmanager's data are its own:
  file.directory:
    - name: /var/lib/prometheus/alertmanager
    - user: prometheus
    - group: prometheus
    - mode: '0700'
    - require:
      - pkg: Alertmanager is installed

# Passwords and addresses that are as good as passwords may be in it.
Alertmanager is configured:
  file.serialize:
    - name: /etc/prometheus/alertmanager-qhub.yml
    - dataset: {{ config | json }}
    - serializer: yaml
    - group: prometheus
    - mode: '0640'
    - show_changes: false
    - check_cmd: amtool check-config
    - require:
      - pkg: Alertmanager is installed

Alertmanager is running:
  service.running:
    - name: {{ alertmanager.service }}
    - enable: true
    - watch:
      - pkg: Alertmanager is installed
      - file: Alertmanager is told how to run

Alertmanager has read its configuration:
  service.running:
    - name: {{ alertmanager.service }}
    - reload: true
    - require:
      - service: Alertmanager is running
    - watch:
      - file: Alertmanager is configured

{{ local("alertmanager", {9093: ["prometheus"]}) }}

{{ scrape("alertmanager", {"static_configs": [{"targets": ["127.0.0.1:9093"]}]}) }}
