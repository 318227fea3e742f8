# The Salt master's daemon.
{% from "salt/map.jinja" import salt_settings %}
{% from "slurm/map.jinja" import slurm %}

# A site writes passwords into some of the files (realm.sls, monitoring.sls, backup.sls).
Only root reads the site's pillar:
  file.directory:
    - name: /etc/qhub/pillar
    - makedirs: true
    - mode: '0700'

Salt master is configured:
  file.managed:
    - name: /etc/salt/master.d/qhub.conf
    - source: salt://salt/files/master.conf.jinja
    - template: jinja
    - context:
        id: {{ pillar.cluster.master.id | json }}
        address: {{ pillar.cluster.master.address | json }}
        settings: {{ salt_settings | json }}
        power: {{ (slurm.power if slurm.power.resume else none) | json }}
    - makedirs: true
    - mode: '0644'

Salt master has no other configuration:
  file.managed:
    - name: /etc/salt/master
    - contents: '# See master.d/qhub.conf, and formulas/salt for what it is made from.'
    - mode: '0644'

# The roster is the pillar's nodes (salt/_roster); salt-ssh insists on this file as well.
Salt master's flat roster is empty:
  file.managed:
    - name: /etc/salt/roster
    - contents: '{}'
    - mode: '0644'

Salt master has a unit:
  file.managed:
    - name: /etc/systemd/system/salt-master.service
    - source: salt://salt/files/salt-master.service
    - mode: '0644'

Salt master's unit is known to systemd:
  cmd.run:
    - name: systemctl daemon-reload
    - onlyif: systemctl show -P NeedDaemonReload salt-master.service | grep --quiet yes
    - require:
      - file: Salt master has a unit

# Not `watch`: this very run needs the master to the end.
Salt master is restarted after this run:
  cmd.run:
    - name: systemd-run --on-active=10 --timer-property=AccuracySec=1s systemctl restart salt-master.service
    - onlyif:
      - systemctl is-active --quiet salt-master.service
      # Files that the running daemon has not read.
      - >-
        find /etc/salt/master.d/qhub.conf /etc/systemd/system/salt-master.service
        -newermt "$(systemctl show --timestamp=us -P ActiveEnterTimestamp salt-master.service)" | grep --quiet .
    - require:
      - file: Salt master is configured
      - file: Salt master has a unit
      - cmd: Salt master's unit is known to systemd
    - order: last

Salt master is enabled:
  service.enabled:
    - name: salt-master
    - require:
      - cmd: Salt master's unit is known to systemd

# Restarts and reloads that an earlier run did not get to, or that failed. On the master alone:
# workers take no state modules (minion.conf.jinja).
Services run with their files:
  unit.current:
    - order: last
