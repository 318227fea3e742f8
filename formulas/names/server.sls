# The cluster's name server.
{% from "names/map.jinja" import names %}
{% from "base/macros.jinja" import confined %}
{% from "firewall/macros.jinja" import allow %}
{% set cluster = pillar.cluster %}

include:
  - firewall

{{ allow("names", "cluster", tcp=[53], udp=[53]) }}

Name server's members are known:
  file.managed:
    - name: /etc/qhub/members.hosts
    - contents:
      {% for id, member in pillar.members | dictsort %}
      - {{ member.address }} {{ id }}.{{ cluster.domain }} {{ id }}
      {% endfor %}
    - makedirs: true
    - mode: '0644'

# Before its package, which would start it on every address.
Name server is configured:
  file.managed:
    - name: /etc/dnsmasq.d/qhub.conf
    - source: salt://names/files/dnsmasq.conf.jinja
    - template: jinja
    - context: {cluster: {{ cluster | json }}}
    - makedirs: true
    - mode: '0644'

# All that it needs root for is port 53.
{{ confined("dnsmasq", "Name server is running", {
  "User": "dnsmasq", "ProcSubset": none, "RuntimeDirectory": "dnsmasq",
  "RestrictAddressFamilies": "AF_INET AF_INET6 AF_NETLINK AF_UNIX", "UMask": none,
}) }}

Name server is installed:
  pkg.installed:
    - pkgs: {{ names.packages | json }}
    - install_recommends: false
    - require:
      - file: Name server is configured
      - file: Unit dnsmasq is confined

Name server is started again when it ends:
  file.managed:
    - name: /etc/systemd/system/dnsmasq.service.d/qhub.conf
    - contents: |
        [Service]
        Restart=always
        RestartSec=1
    - makedirs: true
    - mode: '0644'

Name server is running:
  service.running:
    - name: dnsmasq
    - enable: true
    - require:
      - file: Name server is started again when it ends
    - watch:
      - pkg: Name server is installed
      - file: Name server is configured

# A reload reads the members anew and forgets nothing else.
Name server has read its members:
  service.running:
    - name: dnsmasq
    - reload: true
    - watch:
      - file: Name server's members are known
    - require:
      - service: Name server is running
