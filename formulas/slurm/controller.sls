# slurmctld, the controller.
{% from "slurm/map.jinja" import slurm %}
{% set master = pillar.cluster.master %}
{% set config = dict(slurm.config, ClusterName=pillar.cluster.name, AccountingStorageHost=master.id,
                     AccountingStoragePort=slurm.database.config.DbdPort,
                     SlurmctldHost=master.id ~ "(" ~ master.address ~ ")") %}
{% if slurm.gpu_autodetect %}
{% do config.update({"GresTypes": "gpu", "AccountingStorageTRES": config.get("AccountingStorageTRES", "gres/gpu")}) %}
{% endif %}

include:
  - slurm.common
  - slurm.database

Slurm controller is installed:
  pkg.installed:
    - pkgs: {{ slurm.controller.packages | json }}
    - install_recommends: false

Slurm's state directory exists:
  file.directory:
    - name: {{ config.StateSaveLocation }}
    - user: slurm
    - group: slurm
    - mode: '0700'
    - makedirs: true
    - require:
      - pkg: Slurm's user exists

Slurm is configured:
  file.managed:
    - name: {{ slurm.config_dir }}/slurm.conf
    - source: salt://slurm/files/slurm.conf.jinja
    - template: jinja
    - context: {config: {{ config | json }}, partitions: {{ pillar.partitions | json }}}
    - mode: '0644'
    - require:
      - file: Slurm's configuration directory exists

{% set files = {
  "cgroup.conf": slurm.cgroup,
  "gres.conf": {"AutoDetect": slurm.gpu_autodetect or "off"},
  "plugstack.conf": {},
} %}
{% for name, content in files.items() %}
Slurm's {{ name }} is in place:
  file.managed:
    - name: {{ slurm.config_dir }}/{{ name }}
    - source: salt://slurm/files/key_value.conf.jinja
    - template: jinja
    - context: {config: {{ content | json }}}
    - mode: '0644'
    - require:
      - pkg: Slurm controller is installed
    - require_in:
      - service: Slurm controller is running
    - onchanges_in:
      - cmd: Slurm has read its configuration
{% endfor %}

Slurm's completion log is rotated:
  file.managed:
    - name: /etc/logrotate.d/qhub-slurm
    - source: salt://slurm/files/logrotate.jinja
    - template: jinja
    - context: {path: {{ config.JobCompLoc | json }}}
    - mode: '0644'

slurmctld comes back by itself:
  file.managed:
    - name: /etc/systemd/system/slurmctld.service.d/qhub.conf
    - source: salt://slurm/files/restart.conf
    - makedirs: true
    - mode: '0644'

Slurm controller is running:
  service.running:
    - name: slurmctld
    - enable: true
    - require:
      - pkg: Slurm controller is installed
      - file: Slurm is configured
      - file: slurmctld comes back by itself
      - file: Slurm's state directory exists
      - file: Slurm's log directory exists
      - cmd: slurmdbd answers
    - watch:
      - file: Slurm's key is in place

# Restarts nothing: slurmctld takes the new configuration, or refuses it and goes on with the old one.
Slurm has read its configuration:
  cmd.run:
    - name: timeout {{ slurm.controller.start_timeout }} sh -c 'until scontrol ping; do sleep 0.2; done' && scontrol reconfigure
    - onchanges:
      - file: Slurm is configured
    - require:
      - service: Slurm controller is running
