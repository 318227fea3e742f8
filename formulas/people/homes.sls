# On the master, where the homes are: each person has one, private, and each group a folder that its members share. They are
# made once and never taken away.
{% from "people/map.jinja" import people %}
{% set places = people.homes ~ (" " ~ people.group_folders if people.group_folders else "") %}

include:
  - people

Program that makes homes is installed:
  file.managed:
    - name: /usr/local/sbin/qhub-homes
    - source: salt://people/files/qhub-homes
    - mode: '0755'

Homes exist:
  cmd.run:
    - name: qhub-homes {{ people.skeleton }} {{ places }}
    - unless: qhub-homes --check {{ places }}
    - require:
      - file: Program that makes homes is installed
      - file: Users' passwd entries are known
      - file: Users' group entries are known
      - file: Name service asks for passwd entries there
