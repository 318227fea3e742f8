# Ask the cluster's name server.
{% from "names/map.jinja" import names %}
{% set cluster = pillar.cluster %}
{% if "master" in pillar.roles %}

include:
  - names.server
{% endif %}

{% if names.manage_resolv_conf %}
Name servers from before are kept:
  cmd.run:
    - name: install -D -m 0644 /etc/resolv.conf /etc/qhub/resolv.conf.upstream || install -D -m 0644 /dev/null /etc/qhub/resolv.conf.upstream
    - creates: /etc/qhub/resolv.conf.upstream
    - require_in:
      - file: Name server is asked
{% if "master" in pillar.roles %}
      - file: Name server is configured
{% endif %}

Name server is asked:
  file.managed:
    - name: /etc/resolv.conf
    - follow_symlinks: false
    - force: true
    - contents:
      - search {{ cluster.domain }}
      - nameserver {{ cluster.master.address }}
      {% for server in cluster.dns_servers[:2] %}
      - nameserver {{ server }}
      {% endfor %}
      - options timeout:2 attempts:2
    - mode: '0644'
{% if "master" in pillar.roles %}
    - require:
      - service: Name server is running
{% endif %}
{% endif %}
