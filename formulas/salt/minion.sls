# The Salt minion's daemon: pinned to the master's key, its role grain as the pillar says; its own highstates, and its
# watch over the services of its roles.
{% from "salt/map.jinja" import salt_settings %}
{% set highstate = salt_settings.highstate %}
{% if highstate.mode not in ("test", "enforce", "off") %}
{{ raise("salt.highstate.mode: " ~ highstate.mode ~ " is not allowed: test, enforce or 'off'") }}
{% elif not highstate.interval or highstate.interval < 10 %}
{{ raise("salt.highstate.interval: " ~ highstate.interval ~ " is not allowed: seconds from 10") }}
{% elif highstate.splay is none or highstate.splay < 0 %}
{{ raise("salt.highstate.splay: " ~ highstate.splay ~ " is not allowed: seconds from 0") }}
{% endif %}
{# A run that finds another one under way gives way to it, and the next comes in its time. Its return shows the token:
   Salt lets an accepted minion return jobs under another's id. #}
{% set schedule = {"highstate": {
    "enabled": highstate.mode != "off",
    "function": "state.highstate",
    "kwargs": {"test": highstate.mode == "test"},
    "metadata": {"token": pillar.highstate_token},
    "seconds": highstate.interval,
    "splay": highstate.splay,
    "run_on_start": false,
    "maxrunning": 1,
    "return_job": true,
}} %}
{% set services = {} %}
{% for role in pillar.roles %}
{% for service in salt_settings.services[role] %}
{% do services.update({service: {"onchangeonly": true, "emitatstartup": false}}) %}
{% endfor %}
{% endfor %}

# Salt writes files that everybody may read into both: the minion's schedule with its token, and on the master the
# arguments and results of every job.
{% for directory in ("/etc/salt", "/var/cache/salt") %}
Only root reads {{ directory }}:
  file.directory:
    - name: {{ directory }}
    - makedirs: true
    - mode: '0700'
{% endfor %}

Salt minion is configured:
  file.managed:
    - name: /etc/salt/minion.d/qhub.conf
    - makedirs: true
    - source: salt://salt/files/minion.conf.jinja
    - template: jinja
    - context:
        id: {{ grains.id | json }}
        master: {{ pillar.cluster.master.address | json }}
        roles: {{ pillar.roles | json }}
        services: {{ services | json }}
        services_interval: {{ salt_settings.services.interval | json }}
        options: {{ salt_settings.minion_options | json }}
    - mode: '0644'
    - require:
      - file: Only root reads /etc/salt

Salt minion has a schedule:
  file.serialize:
    - name: /etc/salt/minion.d/schedule.conf
    - dataset: {{ {"schedule": schedule} | json }}
    - serializer: json
    - mode: '0600'
    - show_changes: false
    - require:
      - file: Only root reads /etc/salt

Salt minion has no other configuration:
  file.managed:
    - name: /etc/salt/minion
    - contents: '# See minion.d/qhub.conf, and formulas/salt for what it is made from.'
    - mode: '0644'

Salt minion has a unit:
  file.managed:
    - name: /etc/systemd/system/salt-minion.service
    - source: salt://salt/files/salt-minion.service
    - mode: '0644'

Salt minion's unit is known to systemd:
  cmd.run:
    - name: systemctl daemon-reload
    - onlyif: systemctl show -P NeedDaemonReload salt-minion.service | grep --quiet yes
    - require:
      - file: Salt minion has a unit

# Not `watch`: a minion that stops itself would take the running job with it.
Salt minion is restarted after this run:
  cmd.run:
    - name: systemd-run --on-active=10 --timer-property=AccuracySec=1s systemctl restart salt-minion.service
    - onlyif:
      - systemctl is-active --quiet salt-minion.service
      # Files that the running daemon has not read.
      - >-
        find /etc/salt/minion.d/qhub.conf /etc/salt/minion.d/schedule.conf /etc/systemd/system/salt-minion.service
        -newermt "$(systemctl show --timestamp=us -P ActiveEnterTimestamp salt-minion.service)" | grep --quiet .
    - require:
      - file: Salt minion is configured
      - file: Salt minion has a schedule
      - file: Salt minion has a unit
      - cmd: Salt minion's unit is known to systemd
    - order: last

Salt minion is enabled:
  service.enabled:
    - name: salt-minion
    - require:
      - cmd: Salt minion's unit is known to systemd
