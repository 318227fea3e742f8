# The first state run on a master, without a master: its daemons, and its own minion's accepted key.
{% set id = pillar.cluster.master.id %}

include:
  - salt.master
  - salt.minion

Master's SSH key for its workers exists:
  cmd.run:
    - name: ssh-keygen -q -t ed25519 -N '' -C 'qhub master {{ id }}' -f /root/.ssh/id_ed25519
    - creates: /root/.ssh/id_ed25519

Salt master is running:
  service.running:
    - name: salt-master
    - require:
      - service: Salt master is enabled
      - cmd: Salt master is restarted after this run

Master's minion has an accepted key:
  cmd.run:
    - name: >-
        salt-key --quiet --gen-keys=minion --gen-keys-dir=/etc/salt/pki/minion &&
        install -D -m 0644 /etc/salt/pki/minion/minion.pub /etc/salt/pki/master/minions/{{ id }}
    - unless: cmp /etc/salt/pki/minion/minion.pub /etc/salt/pki/master/minions/{{ id }}
    - require:
      - service: Salt master is running

Master's minion knows its master's key:
  cmd.run:
    - name: install -m 0644 /etc/salt/pki/master/master.pub /etc/salt/pki/minion/minion_master.pub
    - unless: cmp /etc/salt/pki/master/master.pub /etc/salt/pki/minion/minion_master.pub
    - require:
      - cmd: Master's minion has an accepted key

Salt minion is running:
  service.running:
    - name: salt-minion
    - require:
      - service: Salt minion is enabled
      - cmd: Salt minion is restarted after this run
      - cmd: Master's minion knows its master's key
