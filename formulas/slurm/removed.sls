# A worker that leaves: it runs no jobs, holds no secret, and its minion does not come back by itself.
{% from "slurm/map.jinja" import slurm %}

slurmd is stopped:
  service.dead:
    - name: slurmd
    - enable: false

Slurm's key is gone:
  file.absent:
    - name: {{ slurm.config_dir }}/slurm.key
    - require:
      - service: slurmd is stopped

Salt minion does not come back:
  service.disabled:
    - name: salt-minion

# After this run, which it has to report.
Salt minion is stopped after this run:
  cmd.run:
    - name: >-
        systemd-run --on-active=5 --timer-property=AccuracySec=1s
        sh -c 'systemctl stop salt-minion.service; rm -rf /etc/salt/pki/minion'
    - onlyif: systemctl is-active --quiet salt-minion.service
    - require:
      - service: Salt minion does not come back
