# How services start jobs for people without any right of their own: they ask, over a socket, a program of root's that does
# it as the person. A service is whoever is in the group qhub-jobs; its jobs have its user's name, and it reaches no others.
{% set people = {} %}
{% for name, user in pillar.users.items() if not user.get("locked") and user.get("role") != "viewer" %}
{% do people.update({name: user.uid}) %}
{% endfor %}

Group of services that start jobs exists:
  group.present:
    - name: qhub-jobs
    - system: true

Services know whose jobs they may start:
  file.managed:
    - name: /etc/qhub/people.json
    - contents: {{ {"cluster": pillar.cluster.name, "people": people} | json | json }}
    - makedirs: true
    - mode: '0644'

Program that starts jobs is installed:
  file.managed:
    - name: /usr/local/sbin/qhub-jobs
    - source: salt://jobs/files/qhub-jobs
    - mode: '0755'

Services' way to it is installed:
  file.recurse:
    - name: /usr/local/lib/qhub/qhub_jobs
    - source: salt://jobs/files/qhub_jobs
    - file_mode: '0644'
    - dir_mode: '0755'
    - clean: true
    - exclude_pat: '*__pycache__*'

{% for name in ("qhub-jobs.socket", "qhub-jobs@.service") %}
Unit {{ name }} is in place:
  file.managed:
    - name: /etc/systemd/system/{{ name }}
    - source: salt://jobs/files/{{ name }}
    - mode: '0644'
{% endfor %}

Services get jobs started:
  service.running:
    - name: qhub-jobs.socket
    - enable: true
    - require:
      - group: Group of services that start jobs exists
      - file: Services know whose jobs they may start
      - file: Program that starts jobs is installed
      - file: Unit qhub-jobs@.service is in place
    - watch:
      - file: Unit qhub-jobs.socket is in place
