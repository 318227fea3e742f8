# What may come in, on every node.
{% from "firewall/map.jinja" import firewall %}
{% from "firewall/macros.jinja" import allow %}
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
    - watch:
      - file: Firewall knows the cluster
      - file: Firewall has no other openings

Firewall has not been taken away:
  cmd.run:
    - name: systemctl reload qhub-firewall.service
    - unless: nft list chain inet qhub input
    - require:
      - service: Firewall is in force
{% else %}
Firewall is off:
  service.dead:
    - name: qhub-firewall
    - enable: false
    - onlyif: test -e /etc/systemd/system/qhub-firewall.service
  cmd.run:
    - name: nft delete table inet qhub
    - onlyif: nft list table inet qhub
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
