# Every node knows the people.
{% from "people/map.jinja" import people %}

Users are looked up in a second set of files:
  pkg.installed:
    - pkgs: {{ people.packages | json }}
    - install_recommends: false

{% for database, mode in {"passwd": "0644", "group": "0644", "shadow": "0640", "uids": "0644"}.items() %}
Users' {{ database }} entries are known:
  file.managed:
    - name: /var/lib/extrausers/{{ database }}
{% if "master" in pillar.roles %}
    - source: /var/lib/qhub/files/generated/{{ database }}
{% else %}
    - source: salt://generated/{{ database }}
{% endif %}
    - makedirs: true
    - mode: '{{ mode }}'
    - group: {{ "shadow" if database == "shadow" else "root" }}
    - show_changes: false
{% if database != "uids" %}

Name service asks for {{ database }} entries there:
  file.replace:
    - name: /etc/nsswitch.conf
    - pattern: ^({{ database }}:\s+)(?!.*\bextrausers\b)(.*?)\s*$
    - repl: \g<1>\g<2> extrausers
    - require:
      - pkg: Users are looked up in a second set of files
{% endif %}
{% endfor %}

Program that shuts people out is installed:
  file.managed:
    - name: /usr/local/sbin/qhub-shut-out
    - source: salt://people/files/qhub-shut-out
    - mode: '0755'

# No other state is asked whether it changed something: whoever came in meanwhile is ended by the next run.
Locked and removed people have nothing running but jobs:
  cmd.run:
    - name: qhub-shut-out
    - unless: qhub-shut-out --check
    - require:
      - file: Program that shuts people out is installed
{% for database in ("passwd", "shadow", "uids") %}
      - file: Users' {{ database }} entries are known
{% endfor %}
