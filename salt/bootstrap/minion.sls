# Turn a bare SSH host into a minion that the master already trusts: salt-ssh NAME state.apply bootstrap.minion
{% set keys = salt["minion_key.preseed"](grains.id) %}
{% set mirror = pillar.get("artifacts", {}).get("mirror") or "" %}

include:
  - salt.minion

{% set bootstrap = "/var/lib/qhub/bootstrap" %}
{% for name, mode in {
  "install.sh": "0755", "apt_get.py": "0755", "environment.sh": "0755", "root_only.sh": "0755",
  "requirements.lock": "0644",
}.items() %}
Bootstrap's {{ name }} is here:
  file.managed:
    - name: {{ bootstrap }}/{{ name }}
    - source: salt://bootstrap/{{ name }}
    - makedirs: true
    - mode: '{{ mode }}'
    - show_changes: false
    - require_in:
      - cmd: Salt is installed
{% endfor %}

Salt is installed:
  cmd.run:
    - name: {{ bootstrap }}/install.sh {{ bootstrap }}/requirements.lock {{ mirror }}
    - unless: {{ bootstrap }}/environment.sh --check salt {{ bootstrap }}/requirements.lock

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
