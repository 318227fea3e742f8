# Every node knows the people.
{% from "users/map.jinja" import users %}

Users are looked up in a second set of files:
  pkg.installed:
    - pkgs: {{ users.packages | json }}
    - install_recommends: false

{% for database in ("passwd", "group") %}
Users' {{ database }} entries are known:
  file.managed:
    - name: /var/lib/extrausers/{{ database }}
{% if "master" in pillar.roles %}
    - source: /var/lib/qhub/files/generated/{{ database }}
{% else %}
    - source: salt://generated/{{ database }}
{% endif %}
    - makedirs: true
    - mode: '0644'
    - show_changes: false

Name service asks for {{ database }} entries there:
  file.replace:
    - name: /etc/nsswitch.conf
    - pattern: ^({{ database }}:\s+)(?!.*\bextrausers\b)(.*?)\s*$
    - repl: \g<1>\g<2> extrausers
    - require:
      - pkg: Users are looked up in a second set of files
{% endfor %}
