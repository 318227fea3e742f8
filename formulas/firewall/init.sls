# What may come in, and who may use services' local ports, on every node.
{% from "firewall/map.jinja" import firewall %}
{% from "firewall/macros.jinja" import allow, local %}
{% set master = "master" in pillar.roles %}

{% if firewall.enabled %}
Firewall is installed:
  pkg.installed:
    - pkgs: {{ firewall.packages | json }}
    - install_recommends: false

Program that checks rules is installed:
  file.managed:
    - name: /usr/local/sbin/qhub-check-rules
    - source: salt://firewall/files/qhub-check-rules
    - mode: '0755'
    - require:
      - pkg: Firewall is installed

# The administrator is never locked out; and who is to become a member has to reach Salt first, which asks for a key.
{{ allow("ssh", firewall.ssh, tcp=[22]) }}
{% if master %}
{{ allow("salt", "network", tcp=[4505, 4506]) }}
{{ local("salt", {4505: [], 4506: []}) }}
{% endif %}
{% if firewall.local_users %}
{{ local("site", firewall.local_users) }}
{% endif %}

{% set members = pillar.members.values() | map(attribute="address") | sort if master else [pillar.cluster.network] %}
Firewall knows the cluster:
  file.managed:
    - name: /etc/nftables.d/qhub.nft
    - source: salt://firewall/files/qhub.nft.jinja
    - template: jinja
    - context:
        members: {{ members | json }}
        network: {{ pillar.cluster.network | json }}
        rules: {{ firewall.rules | json }}
    - makedirs: true
    - mode: '0644'
    - check_cmd: nft --check --file
    - tmp_ext: .nft
    - require:
      - pkg: Firewall is installed

Firewall knows local ports:
  file.managed:
    - name: /etc/nftables.d/qhub-local.nft
    - source: salt://firewall/files/qhub-local.nft
    - mode: '0644'
    - check_cmd: nft --check --file
    - tmp_ext: .nft
    - require:
      - file: Firewall knows the cluster

Program that loads rules is installed:
  file.managed:
    - name: /usr/local/sbin/qhub-firewall
    - source: salt://firewall/files/qhub-firewall
    - mode: '0755'

Firewall has a unit:
  file.managed:
    - name: /etc/systemd/system/qhub-firewall.service
    - source: salt://firewall/files/qhub-firewall.service
    - mode: '0644'

# All at once: rules that nftables does not take change nothing.
Firewall is in force:
  service.running:
    - name: qhub-firewall
    - enable: true
    - reload: true
    - require:
      - file: Firewall has a unit
      - file: Program that loads rules is installed
    - watch:
      - file: Firewall knows the cluster
      - file: Firewall knows local ports
      - file: Firewall has no other openings

# Rules that somebody else removed, and files that a failed run changed without loading them.
Firewall has loaded its rules:
  cmd.run:
    - name: systemctl reload qhub-firewall.service
    - unless: qhub-firewall loaded
    - order: last
    - require:
      - service: Firewall is in force
      - file: Firewall knows no other local ports
{% else %}
Firewall is off:
  service.dead:
    - name: qhub-firewall
    - enable: false
    - onlyif: test -e /etc/systemd/system/qhub-firewall.service
  cmd.run:
    - name: echo 'table inet qhub; delete table inet qhub; table inet qhub_local; delete table inet qhub_local' | nft --file -
    - onlyif: nft list tables | grep --quiet 'inet qhub'
    - require:
      - service: Firewall is off
{% endif %}

# All of them are here: in a highstate (roles/) what no formula declares is removed.
Firewall has no other openings:
  file.directory:
    - name: /etc/nftables.d/qhub
    - makedirs: true
    - clean: false
    - mode: '0755'

# At the end, when every user exists that a formula names.
Firewall knows no other local ports:
  file.directory:
    - name: /etc/nftables.d/qhub-local
    - makedirs: true
    - clean: false
    - mode: '0755'
    - order: last
