# Nightly backups of the master. docs/operations/backup.md says what is in them and how it comes back.
{% from "backup/map.jinja" import backup %}
{% from "conda_store/map.jinja" import conda_store %}
{% from "people/map.jinja" import people %}
{% from "postgresql/map.jinja" import postgresql %}
{% from "mariadb/map.jinja" import mariadb %}
{% from "slurm/map.jinja" import slurm %}
{% from "traefik/map.jinja" import traefik %}
{% set local = backup.repository.startswith("/") %}
{% if not local and ":" not in backup.repository %}
{{ raise("backup.repository: " ~ backup.repository ~ " is not allowed: a directory (/...) or what restic takes, such as sftp:user@host:/directory") }}
{% endif %}
{% for path in backup.paths if not path.startswith("/") %}
{{ raise("backup.paths: " ~ path ~ " is not allowed: a path (/...)") }}
{% endfor %}
{% for section, least in (("keep", 0), ("verify", 1)) %}
{%   for name, count in backup[section].items() if count < least %}
{{ raise("backup." ~ section ~ "." ~ name ~ ": " ~ count ~ " is not allowed: a whole number from " ~ least) }}
{%   endfor %}
{% endfor %}
{% if not backup.keep.daily %}
{{ raise("backup.keep.daily: 0 is not allowed: a whole number from 1") }}
{% endif %}
{% for name, value in backup.environment.items() if "\n" in value | string %}
{{ raise("backup.environment." ~ name ~ ": ** is not allowed: one line") }}
{% endfor %}
{% set data = [people.homes] + ([people.group_folders] if people.group_folders else []) + [conda_store.directory] %}
{% set settings = {
  "host": pillar.cluster.master.id,
  "repository": backup.repository,
  "keep": backup.keep,
  "verify": backup.verify,
  "keep_free": backup.keep_free,
  "exclude": backup.exclude + [conda_store.directory ~ "/caches"],
  "data": data if backup.data else [],
  "keys": ["/etc/qhub", "/var/lib/qhub", "/etc/salt/pki", "/root/.ssh", "/etc/ssh/ssh_host_*", "/etc/jupyterhub/conf.d",
           "/etc/jupyterhub/templates"] + traefik.certificate.files.values() | select | list,
  "state": [slurm.config.StateSaveLocation, "/var/lib/sshgate", "/var/lib/jupyterhub", "/var/lib/traefik",
            "/var/lib/prometheus/alertmanager"] + backup.paths,
  "sqlite": ["/var/lib/dask-gateway/gateway.sqlite"],
  "units": ["traefik.service", "sshgate.service", "jupyterhub.service", "dask-gateway.service", "conda-store-server.service",
            "conda-store-worker.service", "keycloak.service", "grafana-server.service", "prometheus-alertmanager.service", "slurmctld.service",
            "slurmdbd.service"],
} %}
{# keys: restored onto a bare machine, before it makes its own. state: replaced by a restore, by which `units` are stopped.
   data: of it a restore brings back what is missing. #}

# A restore loads databases into them before anybody else does.
include:
  - mariadb
  - postgresql

restic is installed:
  pkg.installed:
    - pkgs: {{ backup.packages | json }}
    - install_recommends: false

Settings of backups are root's:
  file.directory:
    - name: /etc/qhub/backup
    - mode: '0700'
    - makedirs: true

Backups have their settings:
  file.managed:
    - name: /etc/qhub/backup/settings.json
    - contents: {{ settings | json | json }}
    - mode: '0600'
    - show_changes: false
    - require:
      - file: Settings of backups are root's

Backups have their password:
  file.managed:
    - name: /etc/qhub/backup/password
    - contents_pillar: secrets:backup_password
    - mode: '0600'
    - show_changes: false
    - require:
      - file: Settings of backups are root's

Backups have their credentials:
  file.managed:
    - name: /etc/qhub/backup/environment
    - contents:
      - '# Written by Salt (formulas/backup).'
      {% for name, value in backup.environment | dictsort %}
      - {{ (name ~ "=" ~ value) | json }}
      {% endfor %}
    - mode: '0600'
    - show_changes: false
    - require:
      - file: Settings of backups are root's

qhub-backup is installed:
  file.managed:
    - name: /usr/local/sbin/qhub-backup
    - source: salt://backup/files/qhub-backup
    - mode: '0755'

{% if local %}
Directory of backups exists:
  file.directory:
    - name: {{ backup.repository | json }}
    - mode: '0700'
    - makedirs: true
    - require_in:
      - file: Unit qhub-backup.service is in place
{% endif %}

Unit qhub-backup.service is in place:
  file.managed:
    - name: /etc/systemd/system/qhub-backup.service
    - source: salt://backup/files/qhub-backup.service.jinja
    - template: jinja
    - context:
        databases: {{ [postgresql.service, mariadb.service] | json }}
        directory: {{ (backup.repository if local else "") | json }}
        memory: {{ backup.memory }}
    - mode: '0644'

# Nobody starts it now, who would see to that.
Unit qhub-backup.service is known to systemd:
  cmd.run:
    - name: systemctl daemon-reload
    - onlyif: systemctl show -P NeedDaemonReload qhub-backup.service | grep --quiet yes
    - require:
      - file: Unit qhub-backup.service is in place

{% if backup.schedule %}
Backups have a timer:
  file.managed:
    - name: /etc/systemd/system/qhub-backup.timer
    - contents:
      - '# Written by Salt (formulas/backup).'
      - '[Unit]'
      - Description=Backs this master up
      - '[Timer]'
      - {{ ("OnCalendar=" ~ backup.schedule) | json }}
      - RandomizedDelaySec={{ backup.delay }}
      - Persistent=true
      - '[Install]'
      - WantedBy=timers.target
    - check_cmd: sh -c 'systemd-analyze calendar -- "$(sed -n s/^OnCalendar=//p "$0")"'
    - mode: '0644'

Backups are made:
  service.running:
    - name: qhub-backup.timer
    - enable: true
    - require:
      - pkg: restic is installed
      - file: Backups have their settings
      - file: Backups have their password
      - file: Backups have their credentials
      - file: qhub-backup is installed
      - cmd: Unit qhub-backup.service is known to systemd
      - service: MariaDB is running
      - service: PostgreSQL is running
    - watch:
      - file: Backups have a timer
{% else %}
Backups are not made by themselves:
  service.dead:
    - name: qhub-backup.timer
    - enable: false
    - onlyif: test -e /etc/systemd/system/qhub-backup.timer

Backups have no timer:
  file.absent:
    - name: /etc/systemd/system/qhub-backup.timer
    - require:
      - service: Backups are not made by themselves
{% endif %}
