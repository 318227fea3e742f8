# slurmdbd, the accounting daemon, and its database.
{% from "slurm/map.jinja" import slurm %}
{% from "base/macros.jinja" import confined %}
{% from "firewall/macros.jinja" import allow %}
{% set database = slurm.database %}
{% set config = dict(database.config, DbdHost=pillar.cluster.master.id, DbdAddr=pillar.cluster.master.address) %}
{% import_yaml "slurm/confined.yaml" as confinement %}

include:
  - slurm.config
  - mariadb
  - firewall

{{ allow("slurmdbd", "cluster", tcp=[database.config.DbdPort]) }}

Accounting database exists:
  mysql_database.present:
    - name: {{ config.StorageLoc }}
    - connection_unix_socket: /run/mysqld/mysqld.sock
    - connection_user: root
    - require:
      - service: MariaDB is running

# Not mysql_user: it cannot name the plugin by which MariaDB trusts a local user.
Accounting database's user exists:
  cmd.run:
    - name: >-
        mariadb --execute "CREATE OR REPLACE USER slurm@localhost IDENTIFIED VIA unix_socket;
        GRANT ALL ON \`{{ config.StorageLoc }}\`.* TO slurm@localhost"
    - unless: runuser -u slurm -- mariadb --user=slurm --execute "SHOW TABLES" {{ config.StorageLoc }}
    - require:
      - mysql_database: Accounting database exists
      - pkg: Slurm's user exists

slurmdbd is configured:
  file.managed:
    - name: {{ slurm.config_dir }}/slurmdbd.conf
    - source: salt://slurm/files/key_value.conf.jinja
    - template: jinja
    - context: {config: {{ config | json }}}
    - user: slurm
    - group: slurm
    - mode: '0600'
    - show_changes: false
    - check_cmd: qhub-slurm-config check slurmdbd.conf
    - require:
      - pkg: slurmdbd is installed
      - file: Program that checks Slurm's configuration is installed
      - file: Slurm's key is in place
      - cmd: Accounting database's user exists

slurmdbd comes back by itself:
  file.managed:
    - name: /etc/systemd/system/slurmdbd.service.d/qhub.conf
    - source: salt://slurm/files/restart.conf
    - makedirs: true
    - mode: '0644'

{{ confined("slurmdbd", "slurmdbd is running", dict(confinement.daemon, **confinement.no_programs)) }}

slurmdbd is running:
  service.running:
    - name: slurmdbd
    - enable: true
    - require:
      - file: slurmdbd comes back by itself
    - watch:
      - file: slurmdbd is configured
      - file: Slurm's key is in place

# It opens its port only when it has read the associations.
slurmdbd answers:
  cmd.run:
    - name: timeout {{ database.start_timeout }} sh -c 'until timeout 10 sacctmgr --noheader show cluster; do sleep 0.2; done'
    - unless: timeout 10 sacctmgr --noheader show cluster
    - require:
      - service: slurmdbd is running
      - file: Slurm is configured
