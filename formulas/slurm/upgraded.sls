# Slurm's packages in the version that there is for them. In no role: orch.upgrade knows when.
{% from "slurm/map.jinja" import slurm %}

Program that upgrades Slurm is installed:
  file.managed:
    - name: /usr/local/sbin/qhub-slurm-upgrade
    - source: salt://slurm/files/qhub-slurm-upgrade
    - mode: '0755'

Slurm is of the version that there is:
  cmd.run:
    - name: qhub-slurm-upgrade {{ slurm.database.upgrade_timeout }}
    - unless: qhub-slurm-upgrade --check
    - require:
      - file: Program that upgrades Slurm is installed
