# On the master: everybody's public keys, which every node gets. Workers never see the users' pillar.
include:
  - sshd

List of people's keys is rendered:
  file.managed:
    - name: /var/lib/qhub/files/generated/people_keys
    - source: salt://sshd/files/people_keys.jinja
    - template: jinja
    - makedirs: true
    - mode: '0644'
    - require_in:
      - file: People's keys are known
