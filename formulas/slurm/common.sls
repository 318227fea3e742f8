# What every Slurm daemon needs.
{% from "slurm/map.jinja" import slurm %}

# Debian's packages bring and start it; auth/slurm has taken its place.
munge stays off:
  file.symlink:
    - name: /etc/systemd/system/munge.service
    - target: /dev/null

Slurm's user exists:
  pkg.installed:
    - pkgs: {{ slurm.packages | json }}
    - install_recommends: false
    - require:
      - file: munge stays off

Slurm's configuration directory exists:
  file.directory:
    - name: {{ slurm.config_dir }}
    - mode: '0755'
    - makedirs: true

# The one secret of auth/slurm.
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

# The log of ended jobs has everybody's, whatever PrivateData says.
Slurm's log directory exists:
  file.directory:
    - name: {{ slurm.log_dir }}
    - user: slurm
    - group: slurm
    - mode: '0750'
    - require:
      - pkg: Slurm's user exists
