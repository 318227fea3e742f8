# Which ports people's programs may listen on. Only in a whole highstate, and at its end: by then, the units of all services
# give them the right to listen on lower ports.
{% from "firewall/map.jinja" import firewall %}

Lower ports are not for people's programs:
  sysctl.present:
    - name: net.ipv4.ip_unprivileged_port_start
    - value: {{ firewall.unprivileged_port_start }}
    - config: /etc/sysctl.d/60-qhub.conf
    - order: last
