# On the master: the files that every node gets. Workers never see the users' pillar.
{% from "users/map.jinja" import users %}

include:
  - users

{% for name in ("passwd", "group") %}
List of {{ name }} entries is rendered:
  file.managed:
    - name: /var/lib/qhub/files/generated/{{ name }}
    - source: salt://users/files/{{ name }}.jinja
    - template: jinja
    - context: {settings: {{ users | json }}}
    - makedirs: true
    - mode: '0644'
    - require_in:
      - file: Users' {{ name }} entries are known
{% endfor %}
