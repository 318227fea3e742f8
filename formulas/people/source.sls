# On the master: the files that every node gets. Workers never see the users' pillar.
{% from "people/map.jinja" import people %}

include:
  - people

{% for name in ("passwd", "group", "shadow", "uids") %}
List of {{ name }} entries is rendered:
  file.managed:
    - name: /var/lib/qhub/files/generated/{{ name }}
    - source: salt://people/files/{{ name }}.jinja
    - template: jinja
    - context: {settings: {{ people | json }}}
    - makedirs: true
    - mode: '0644'
    - require_in:
      - file: Users' {{ name }} entries are known
{% endfor %}
