# slurmctld, the controller.
{% from "slurm/map.jinja" import slurm %}
{% from "base/macros.jinja" import confined %}
{% from "firewall/macros.jinja" import allow %}
{% import_yaml "slurm/confined.yaml" as confinement %}
{% set settings = dict(confinement.daemon, **(confinement.with_power if slurm.power.resume else {})) %}
{% set programs = ["PrologSlurmctld", "EpilogSlurmctld", "ResumeProgram", "SuspendProgram"] | select("in", slurm.config) | list %}
{% if slurm.config.get("MailProg") != "/usr/bin/true" or programs %}
{% set settings = dict(settings, **confinement.with_programs) %}
{% endif %}
{% set settings_of_additions = {"purge": "none"} %}
{% for key, value in pillar.get("slurm_accounting", {}).items() if key not in ("purge", "reservations", "resources") %}
{% do settings_of_additions.update({key: value}) %}
{% endfor %}

include:
  - slurm.config
  - slurm.database
  - firewall
{% if slurm.power.resume %}
  - slurm.power
{% endif %}

# srun listens for the nodes of its job.
{{ allow("slurmctld", "cluster", tcp=[slurm.config.SlurmctldPort, slurm.config.SrunPortRange]) }}

Slurm controller is installed:
  pkg.installed:
    - pkgs: {{ slurm.controller.packages | json }}
    - install_recommends: false
    - require:
      - file: munge stays off

Slurm's state directory exists:
  file.directory:
    - name: {{ slurm.config.StateSaveLocation }}
    - user: slurm
    - group: slurm
    - mode: '0700'
    - makedirs: true
    - require:
      - pkg: Slurm's user exists

Slurm's completion log is rotated:
  file.managed:
    - name: /etc/logrotate.d/qhub-slurm
    - source: salt://slurm/files/logrotate.jinja
    - template: jinja
    - context: {path: {{ slurm.config.JobCompLoc | json }}}
    - mode: '0644'

slurmctld comes back by itself:
  file.managed:
    - name: /etc/systemd/system/slurmctld.service.d/qhub.conf
    - source: salt://slurm/files/restart.conf
    - makedirs: true
    - mode: '0644'

{{ confined("slurmctld", "Slurm controller is running", settings) }}

# Commands on this machine have slurmctld sign for them: with the key of before, slurmdbd would not answer them.
Slurm controller has no other key:
  cmd.run:
    - name: systemctl stop slurmctld
    - onlyif: >-
        systemctl is-active --quiet slurmctld &&
        test $(stat -c %Y {{ slurm.config_dir }}/slurm.key) -gt $(date -d "$(systemctl show -P ActiveEnterTimestamp slurmctld)" +%s)
    - require:
      - file: Slurm's key is in place
    - require_in:
      - cmd: slurmdbd answers

# Before the partitions that name them. Accounts and QOS that no partition names any more are removed at the end
# (slurm.accounting).
Accounts and QOS of partitions exist:
  slurm_account.managed:
    - name: {{ pillar.cluster.name }}
    - accounts: {{ pillar.get("accounts", {}) | json }}
    - qos: {{ pillar.get("qos", {}) | json }}
    - settings: {{ settings_of_additions | json }}
    - require:
      - cmd: slurmdbd answers

Slurm controller is running:
  service.running:
    - name: slurmctld
    - enable: true
    # An upgrade that was cut off leaves it masked.
    - unmask: true
    - unmask_runtime: true
    - require:
      - pkg: Slurm controller is installed
      - file: Slurm is configured
      - file: slurmctld comes back by itself
      - file: Slurm's state directory exists
      - file: Slurm's log directory exists
      - slurm_account: Accounts and QOS of partitions exist
{% if slurm.power.resume %}
      - sls: slurm.power
{% endif %}
    - watch:
      - file: Slurm's key is in place

# Restarts nothing: slurmctld loads the new configuration, or refuses it and goes on with the previous one.
Slurm has loaded its configuration:
  cmd.run:
    - name: qhub-slurm-config load {{ slurm.controller.start_timeout }}
    - unless: qhub-slurm-config running
    - require:
      - service: Slurm controller is running
      - file: Slurm is configured
      {% for name in ("cgroup.conf", "gres.conf", "plugstack.conf") %}
      - file: Slurm's {{ name }} is in place
      {% endfor %}
