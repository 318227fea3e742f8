# Turn a bare SSH host into a minion that the master already trusts: salt-ssh NAME state.apply bootstrap.minion
{% set keys = salt["minion_key.preseed"](grains.id) %}
{% set mirror = pillar.get("artifacts", {}).get("mirror") or "" %}

include:
  - salt.minion

Salt's requirements are here:
  file.managed:
    - name: /var/lib/qhub/requirements.lock
    - source: salt://bootstrap/requirements.lock
    - makedirs: true
    - mode: '0644'

Salt is installed:
  cmd.script:
    - source: salt://bootstrap/install.sh
    - args: /var/lib/qhub/requirements.lock {{ mirror }}
    - unless: test "$(readlink /opt/qhub/salt)" = "/opt/qhub/salt-$(sha256sum /var/lib/qhub/requirements.lock | cut -c1-12)"
    - require:
      - file: Salt's requirements are here

Minion's key directory exists:
  file.directory:
    - name: /etc/salt/pki/minion
    - makedirs: true
    - mode: '0700'

{% for name, mode in {"minion.pem": "0400", "minion.pub": "0644", "minion_master.pub": "0644"}.items() %}
Minion has its {{ name }}:
  file.managed:
    - name: /etc/salt/pki/minion/{{ name }}
    - contents: {{ keys[name] | json }}
    - mode: '{{ mode }}'
    - show_changes: false
    - require:
      - file: Minion's key directory exists
{% endfor %}

Salt minion is running:
  service.running:
    - name: salt-minion
    - require:
      - cmd: Salt is installed
      - service: Salt minion is enabled
      - cmd: Salt minion is restarted after this run
    - watch:
      - file: Minion has its minion.pem
      - file: Minion has its minion_master.pub
