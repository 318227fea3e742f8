# On the master, where the homes are: each user has one, private, made once and never taken away.
{% from "users/map.jinja" import users %}

include:
  - users

Program that makes homes is installed:
  file.managed:
    - name: /usr/local/sbin/qhub-homes
    - source: salt://users/files/qhub-homes
    - mode: '0755'

Homes exist:
  cmd.run:
    - name: qhub-homes {{ users.homes }} {{ users.skeleton }}
    - unless: qhub-homes --check {{ users.homes }}
    - require:
      - file: Program that makes homes is installed
      - file: Users' passwd entries are known
      - file: Name service asks for passwd entries there
