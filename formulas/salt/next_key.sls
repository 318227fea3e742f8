# A minion goes over to the master's next key (orch.rotate): a few seconds after this run, which it has to report.
Master's next key is here:
  file.managed:
    - name: /etc/salt/pki/minion/next_master.pub
    - source: salt://salt/next_master.pub
    - mode: '0644'

# A minion that is back before the master has that key is refused, and tries again.
Minion goes over to it after this run:
  cmd.run:
    - name: >-
        systemd-run --on-active=5 --timer-property=AccuracySec=1s
        sh -c 'mv /etc/salt/pki/minion/next_master.pub /etc/salt/pki/minion/minion_master.pub && systemctl restart salt-minion.service'
    - onlyif: test -e /etc/salt/pki/minion/next_master.pub
    - require:
      - file: Master's next key is here
