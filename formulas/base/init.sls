# Packages, time, and whom to trust.
{% from "base/map.jinja" import base %}
{% if "master" in pillar.roles %}

include:
  - ca
{% endif %}

{% set mirror = pillar.artifacts.mirror %}
{% if mirror %}
Packages come from the mirror:
  file.managed:
    - name: /etc/apt/sources.list.d/qhub-mirror.list
    - contents: 'deb [trusted=yes] file:{{ mirror }}/debs ./'
    - mode: '0644'
    - require_in:
      - pkg: Base packages are installed
{% endif %}

{% if grains.os_family == "Debian" %}
# apt-get refuses to work after dpkg was interrupted, such as by a power failure.
Interrupted installation of packages is completed:
  cmd.script:
    - source: salt://bootstrap/apt_get.py
    - args: --yes --quiet=2 --no-remove --fix-broken install
    - onlyif: test -n "$(ls /var/lib/dpkg/updates; dpkg --audit)"
    - order: first
{% endif %}

Base packages are installed:
  pkg.installed:
    - pkgs: {{ base.packages | json }}
    - install_recommends: false

{% if base.time_sync %}
Chrony is installed:
  pkg.installed:
    - pkgs: {{ base.chrony.packages | json }}
    - install_recommends: false

{% if base.chrony.servers %}
Chrony's time servers are configured:
  file.managed:
    - name: /etc/chrony/sources.d/qhub.sources
    - contents: {{ base.chrony.servers | map("regex_replace", "^(.*)$", "server \\1 iburst") | list | json }}
    - mode: '0644'
    - require:
      - pkg: Chrony is installed
    - watch_in:
      - service: Chrony is running
{% endif %}

Chrony is started again when it ends:
  file.managed:
    - name: /etc/systemd/system/{{ base.chrony.service }}.service.d/qhub.conf
    - contents: |
        [Service]
        Restart=always
        RestartSec=1
    - makedirs: true
    - mode: '0644'

Chrony is running:
  service.running:
    - name: {{ base.chrony.service }}
    - enable: true
    - require:
      - pkg: Chrony is installed
      - file: Chrony is started again when it ends
{% endif %}

# Certificates are the directory's whole content: one taken out of the pillar is trusted no more.
Trusted certificates are in place:
  file.directory:
    - name: /usr/local/share/ca-certificates/qhub
    - clean: true
    - mode: '0755'
{% for name, pem in base.trusted_cas | dictsort %}
Certificate {{ name }} is in place:
  file.managed:
    - name: /usr/local/share/ca-certificates/qhub/{{ name }}.crt
    - contents: {{ pem | json }}
    - mode: '0644'
    - require_in:
      - file: Trusted certificates are in place
{% endfor %}

# The cluster's own authority. The master makes it before any worker asks for it.
Cluster's certificate authority is in place:
{% if "master" in pillar.roles %}
  file.symlink:
    - name: /usr/local/share/ca-certificates/qhub-ca.crt
    - target: /var/lib/qhub/files/ca/ca.crt
    - require:
      - x509: Certificate authority has a certificate
{% else %}
  file.managed:
    - name: /usr/local/share/ca-certificates/qhub-ca.crt
    - source: salt://ca/ca.crt
    - mode: '0644'
{% endif %}

# While the authority is being rotated (orch.rotate), the one that comes, and then the one of before.
{% set rotated = salt["file.file_exists"]("/var/lib/qhub/files/ca/beside.crt") or salt["file.file_exists"]("/var/lib/qhub/ca/next/generation")
    if "master" in pillar.roles else salt["cp.hash_file"]("salt://ca/beside.crt") %}
Authority beside it is trusted while there is one:
{% if not rotated %}
  file.absent:
    - name: /usr/local/share/ca-certificates/qhub-ca-beside.crt
{% elif "master" in pillar.roles %}
  file.symlink:
    - name: /usr/local/share/ca-certificates/qhub-ca-beside.crt
    - target: /var/lib/qhub/files/ca/beside.crt
    - force: true
    - require:
      - x509: Certificate authority has a certificate
      {% if salt["file.file_exists"]("/var/lib/qhub/ca/next/generation") %}
      - x509: Next certificate authority has a certificate
      {% endif %}
{% else %}
  file.managed:
    - name: /usr/local/share/ca-certificates/qhub-ca-beside.crt
    - source: salt://ca/beside.crt
    - mode: '0644'
{% endif %}

# A file or a directory with a name less is newer than what was made of them.
System trusts the certificates:
  cmd.run:
    - name: update-ca-certificates --fresh
    - unless: test -z "$(find -L /usr/local/share/ca-certificates -newer /etc/ssl/certs/ca-certificates.crt)"
    - require:
      - file: Trusted certificates are in place
      - file: Cluster's certificate authority is in place
      - file: Authority beside it is trusted while there is one

# For runtimes that bring authorities of their own (Python's requests, conda, Node.js). A service that needs them has
# EnvironmentFile=/etc/qhub/ca.env in its unit; shells, and the jobs started from them, have them by profile.d.
Runtimes are told whom the system trusts:
  file.managed:
    - name: /etc/qhub/ca.env
    - contents: |
        SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
        REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt
        NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt
    - makedirs: true
    - mode: '0644'

Shells are told whom the system trusts:
  file.managed:
    - name: /etc/profile.d/qhub-ca.sh
    - contents: set -a; . /etc/qhub/ca.env; set +a
    - mode: '0644'
