# slurm.conf and its companions, on the master alone: slurmctld hands them to everyone else.
{% from "slurm/map.jinja" import slurm %}
{% set master = pillar.cluster.master %}
{% set config = dict(slurm.config, ClusterName=pillar.cluster.name, AccountingStorageHost=master.address,
                     AccountingStoragePort=slurm.database.config.DbdPort,
                     SlurmctldHost=master.id ~ "(" ~ master.address ~ ")") %}
{% set gres = ["gpu"] if slurm.gpu_autodetect else [] %}
{% for node in pillar.nodes.values() %}
{% do gres.extend((node.get("gres") or "").split(",") | select | map("regex_replace", ":.*", "") | list) %}
{% endfor %}
{% if gres and not config.get("GresTypes") %}
{% do config.update({"GresTypes": gres | unique | sort}) %}
{% endif %}
{% if gres and not config.get("AccountingStorageTRES") %}
{% do config.update({"AccountingStorageTRES": gres | unique | sort | map("regex_replace", "^", "gres/") | list}) %}
{% endif %}
# No node is idle for Slurm, to which all are dynamic: the Salt master's engine tells it which to suspend, as only some may be.
{% if slurm.power.resume %}
{% do config.update({
  "ResumeProgram": slurm.config_dir ~ "/power/resume", "ResumeTimeout": slurm.power.resume_timeout,
  "SuspendProgram": slurm.config_dir ~ "/power/suspend", "SuspendTimeout": slurm.power.suspend_timeout,
  "SuspendTime": slurm.power.idle, "SuspendExcStates": "DYNAMIC_NORM",
}) %}
{% endif %}
# Only where there are scripts: Slurm fails a job whose pattern matches no file.
{% for kind in ("prolog", "epilog") if slurm[kind] %}
{% do config.update({kind | capitalize: slurm.config_dir ~ "/" ~ kind ~ ".d/*"}) %}
{% endfor %}

include:
  - slurm.common

# With Slurm's commands, which check slurm.conf. Without a configuration the package starts nothing.
slurmdbd is installed:
  pkg.installed:
    - pkgs: {{ slurm.database.packages | json }}
    - install_recommends: false
    - require:
      - file: munge stays off

Program that checks Slurm's configuration is installed:
  file.managed:
    - name: /usr/local/sbin/qhub-slurm-config
    - source: salt://slurm/files/qhub-slurm-config
    - mode: '0755'

Slurm is configured:
  file.managed:
    - name: {{ slurm.config_dir }}/slurm.conf
    - source: salt://slurm/files/slurm.conf.jinja
    - template: jinja
    - context: {config: {{ config | json }}, partitions: {{ pillar.partitions | json }}}
    - mode: '0644'
    - check_cmd: qhub-slurm-config check slurm.conf
    - require:
      - pkg: slurmdbd is installed
      - file: Program that checks Slurm's configuration is installed
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
    - source: salt://slurm/files/{{ "gres.conf" if name == "gres.conf" else "key_value.conf" }}.jinja
    - template: jinja
    - context: {config: {{ content | json }}, nodes: {{ (pillar.nodes if name == "gres.conf" else {}) | json }}}
    - mode: '0644'
    - check_cmd: qhub-slurm-config check {{ name }}
    - require:
      - pkg: slurmdbd is installed
      - file: Program that checks Slurm's configuration is installed
      - file: Slurm's configuration directory exists
{% endfor %}
