# What every Slurm daemon needs.
{% from "slurm/map.jinja" import slurm %}

# The one secret of auth/slurm. Base packages bring the user.
Slurm's user exists:
  pkg.installed:
    - pkgs: [slurm-wlm-basic-plugins]
    - install_recommends: false

Slurm's configuration directory exists:
  file.directory:
    - name: {{ slurm.config_dir }}
    - mode: '0755'
    - makedirs: true

Slurm's key is in place:
  file.managed:
    - name: {{ slurm.config_dir }}/slurm.key
    - contents_pillar: secrets:slurm_key
    - contents_newline: false
    - user: slurm
    - group: slurm
    - mode: '0600'
    - show_changes: false
    - require:
      - pkg: Slurm's user exists
      - file: Slurm's configuration directory exists

Slurm's log directory exists:
  file.directory:
    - name: {{ slurm.log_dir }}
    - user: slurm
    - group: slurm
    - mode: '0755'
    - require:
      - pkg: Slurm's user exists

# Debian's packages bring it; auth/slurm has taken its place.
munge is off:
  service.dead:
    - name: munge
    - enable: false
    - require:
      - pkg: Slurm's user exists
