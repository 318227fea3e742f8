# The Salt minion's daemon: pinned to the master's key, its role grain as the pillar says.
{% from "salt/map.jinja" import salt_settings %}

Salt minion is configured:
  file.managed:
    - name: /etc/salt/minion.d/qhub.conf
    - source: salt://salt/files/minion.conf.jinja
    - template: jinja
    - context:
        id: {{ grains.id | json }}
        master: {{ pillar.cluster.master.address | json }}
        roles: {{ pillar.roles | json }}
        options: {{ salt_settings.minion_options | json }}
    - makedirs: true
    - mode: '0644'

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
    - onchanges:
      - file: Salt minion has a unit

# Not `watch`: a minion that stops itself would take the running job with it.
Salt minion is restarted after this run:
  cmd.run:
    - name: systemd-run --on-active=10 --timer-property=AccuracySec=1s systemctl restart salt-minion.service
    - onlyif: systemctl is-active --quiet salt-minion.service
    - onchanges:
      - file: Salt minion is configured
      - file: Salt minion has a unit
    - require:
      - cmd: Salt minion's unit is known to systemd
    - order: last

Salt minion is enabled:
  service.enabled:
    - name: salt-minion
    - require:
      - cmd: Salt minion's unit is known to systemd
