# slurmd, on a machine that runs jobs.
{% from "slurm/map.jinja" import slurm %}
{% from "names/map.jinja" import names %}
{% from "firewall/macros.jinja" import allow %}
{% set node = pillar.nodes[grains.id] %}
{% set conf = ["Weight=" ~ node.get("weight", 1)] %}
{% if node.get("features") %}{% do conf.append("Feature=" ~ node.features | join(",")) %}{% endif %}
{% if node.get("gres") %}{% do conf.append("Gres=" ~ node.gres) %}{% endif %}

include:
  - slurm.common
  - names
  - firewall

# Parts of a job that runs on several nodes talk to each other.
{{ allow("slurmd", "cluster", tcp=[slurm.config.SlurmdPort, slurm.config.SrunPortRange, slurm.worker.job_ports]) }}

slurmd is configured:
  file.managed:
    - name: /etc/default/slurmd
    - contents: |
        # Written by Salt (formulas/slurm).
        SLURMD_OPTIONS="-Z -N {{ grains.id }} --conf-server {{ pillar.cluster.master.id }}:{{ slurm.config.SlurmctldPort }} --conf '{{ conf | join(" ") }}'"
    - mode: '0644'

{# Before the package, which starts it. #}
slurmd tells of a boot:
{% if node.get("power") %}
  file.managed:
    - name: /etc/systemd/system/slurmd.service.d/boot.conf
    - source: salt://slurm/files/boot.conf
    - makedirs: true
    - mode: '0644'

# One that runs already: slurmctld ends the jobs of a node that tells of another.
slurmd has told of this boot:
  cmd.run:
    - name: echo SLURMD_BOOT= >/run/slurmd.started
    - onlyif: systemctl is-active --quiet slurmd
    - creates: /run/slurmd.started
    - require:
      - file: slurmd tells of a boot
    - require_in:
      - service: slurmd is running
{% else %}
  file.absent:
    - name: /etc/systemd/system/slurmd.service.d/boot.conf
{% endif %}

slurmd is installed:
  pkg.installed:
    - pkgs: {{ slurm.worker.packages | json }}
    - install_recommends: false
    - require:
      - file: slurmd is configured
      - file: slurmd tells of a boot
      - file: munge stays off

{% for directory, scripts in {"prolog": slurm.prolog, "epilog": slurm.epilog}.items() %}
Directory of the {{ directory }} exists:
  file.directory:
    - name: {{ slurm.config_dir }}/{{ directory }}.d
    - mode: '0755'
    - clean: true
    - require:
      - file: Slurm's configuration directory exists
{% for name, text in scripts | dictsort %}
Script {{ name }} of the {{ directory }} is in place:
  file.managed:
    - name: {{ slurm.config_dir }}/{{ directory }}.d/{{ name }}
    - contents: {{ text | json }}
    - mode: '0755'
    - require_in:
      - file: Directory of the {{ directory }} exists
{% endfor %}
{% endfor %}

slurmd comes back by itself:
  file.managed:
    - name: /etc/systemd/system/slurmd.service.d/qhub.conf
    - source: salt://slurm/files/restart.conf
    - makedirs: true
    - mode: '0644'

# It may hang when it is told to stop (seen with 24.11.5), and Slurm answers nothing on the node meanwhile. Jobs live on.
slurmd stops in time:
  file.managed:
    - name: /etc/systemd/system/slurmd.service.d/stop.conf
    - makedirs: true
    - contents: |
        # Written by Salt (formulas/slurm).
        [Service]
        TimeoutStopSec=15
    - mode: '0644'

slurmd is running:
  service.running:
    - name: slurmd
    - enable: true
    # An upgrade that was cut off leaves it masked.
    - unmask: true
    - unmask_runtime: true
    - require:
      - pkg: slurmd is installed
      - file: slurmd comes back by itself
      - file: slurmd stops in time
{% if names.manage_resolv_conf %}
      - file: Name server is asked
{% endif %}
    - watch:
      - file: slurmd is configured
      - file: Slurm's key is in place

Program that registers the node anew is installed:
  file.managed:
    - name: /usr/local/sbin/qhub-register
    - source: salt://slurm/files/qhub-register
    - mode: '0755'

{% set features = node.get("features", []) | join(",") %}
{% set weight = node.get("weight", 1) %}
{# Slurm gives shards the type of their GPU, so that they are not compared here; the doctor compares them. #}
{% set gres = (node.get("gres") or "").split(",") | reject("match", "(shard|mps):") | join(",") %}
Slurm has the node's features, weight and resources:
  cmd.run:
    - name: qhub-register {{ grains.id }} {{ weight }} '{{ features }}' '{{ gres }}'
    # Nothing to do where Slurm does not answer.
    - unless: >-
        known=$(timeout 20 sinfo --noheader --Node --nodes={{ grains.id }} --format='%w %f') || exit 0;
        test "$(echo "$known" | sort --unique)" = '{{ weight }} {{ features or "(null)" }}'
        {%- if gres %} &&
        test "$(sinfo --noheader --Node --nodes={{ grains.id }} --format=%G
        | sed -E 's/\([^)]*\)//g; s/,?(shard|mps):[^,]*//g' | sort --unique)" = '{{ gres }}'
        {%- endif %}
    - require:
      - file: Program that registers the node anew is installed
      - service: slurmd is running
