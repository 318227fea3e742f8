# On the master: the workers' host keys, for everybody who goes on from there. They are what root checks when a machine is
# added, by its address. The file ssh_known_hosts is the site's own.
Workers' host keys are known:
  file.managed:
    - name: /etc/ssh/ssh_known_hosts2
    - contents:
      - '# Written by Salt (formulas/sshd).'
      {% for id, member in pillar.members | dictsort if "master" not in member.roles %}
      {% for key in salt["ssh.get_known_host_entries"]("root", hostname=member.address) or [] %}
      - {{ id }},{{ id }}.{{ pillar.cluster.domain }},{{ member.address }} {{ key.enc }} {{ key.key }}
      {% endfor %}
      {% endfor %}
    - makedirs: true
    - mode: '0644'
