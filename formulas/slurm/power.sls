# What slurmctld calls to have nodes switched off and on. It only leaves word: the Salt master's engine `power` does it.
{% from "slurm/map.jinja" import slurm %}

include:
  - slurm.common

Requests to switch nodes have a directory:
  file.directory:
    - name: /var/spool/qhub-power/asked
    - user: slurm
    - group: slurm
    - mode: '0700'
    - makedirs: true
    - require:
      - pkg: Slurm's user exists

Requests that are being met have a directory:
  file.directory:
    - name: /var/spool/qhub-power/taken
    - mode: '0700'
    - makedirs: true

{% for action in ("resume", "suspend") %}
Slurm can ask to {{ action }} nodes:
  file.managed:
    - name: {{ slurm.config_dir }}/power/{{ action }}
    - source: salt://slurm/files/power
    - makedirs: true
    - mode: '0755'
    - require:
      - file: Requests to switch nodes have a directory
      - file: Slurm's configuration directory exists
{% endfor %}
