# SSH for people: their keys are those in the pillar, beside what they have in their own ~/.ssh/authorized_keys.
{% from "sshd/map.jinja" import sshd %}
{% set switch = {true: "yes", false: "no"} %}
{#- Who administers the machine, as far as files tell, and has a key. -#}
{% set with_key = [] %}
{% for name in ["root"] + salt["group.info"]("sudo").get("members", []) %}
{%   set keys = salt["user.info"](name).get("home", "") ~ "/.ssh/authorized_keys" %}
{%   if salt["file.file_exists"](keys) and salt["file.stats"](keys).size %}{% do with_key.append(name) %}{% endif %}
{% endfor %}
{% set guarded = "worker" in pillar.roles and "master" not in pillar.roles and sshd.worker.only_with_a_job %}

SSH server is installed:
  pkg.installed:
    - pkgs: {{ (sshd.packages + (sshd.worker.packages if guarded else [])) | json }}
    - install_recommends: false

People's keys are known:
  file.managed:
    - name: /etc/ssh/people_keys
{% if "master" in pillar.roles %}
    - source: /var/lib/qhub/files/generated/people_keys
{% else %}
    - source: salt://generated/people_keys
{% endif %}
    - mode: '0644'
    - show_changes: false
    - require:
      - pkg: SSH server is installed

Program that finds a person's keys is installed:
  file.managed:
    - name: /usr/local/libexec/qhub-people-keys
    - source: salt://sshd/files/qhub-people-keys
    - makedirs: true
    - mode: '0755'

{% if guarded %}
# A service of PAM's own, so that the package's stays as it is.
SSH server asks Slurm who may come in:
  file.managed:
    - name: /etc/pam.d/qhub-sshd
    - source: salt://sshd/files/pam.jinja
    - template: jinja
    - context: {ids: {{ pillar.cluster.ids | json }}}
    - mode: '0644'
    - require:
      - pkg: SSH server is installed
    - require_in:
      - file: SSH server is configured
{% endif %}

SSH server is configured:
  file.managed:
    # sshd takes the first value: before the files that a cloud's image brings.
    - name: /etc/ssh/sshd_config.d/10-qhub.conf
    - contents:
      - '# Written by Salt (formulas/sshd).'
      {% if with_key %}
      - PasswordAuthentication {{ switch[sshd.passwords] }}
      - KbdInteractiveAuthentication {{ switch[sshd.keyboard_interactive] }}
      {% else %}
      - '# Passwords are as the machine has them: neither root nor a member of the group sudo has a key.'
      {% endif %}
      - X11Forwarding {{ switch[sshd.x11_forwarding] }}
      - AuthorizedKeysCommand /usr/local/libexec/qhub-people-keys %u
      - AuthorizedKeysCommandUser nobody
      # Its ports (6010 to 6999) are lower than people's programs may listen on (formulas/firewall).
      - X11Forwarding no
      {% if guarded %}
      - PAMServiceName qhub-sshd
      {% endif %}
    - mode: '0644'
    - check_cmd: /usr/sbin/sshd -t -f
    - require:
      - pkg: SSH server is installed
      - file: Program that finds a person's keys is installed

SSH server has no configuration of the previous name:
  file.absent:
    - name: /etc/ssh/sshd_config.d/qhub.conf
    - require:
      - file: SSH server is configured

SSH server is running:
  service.running:
    - name: {{ sshd.service }}
    - enable: true
    - reload: true
    - watch:
      - file: SSH server is configured
      - file: SSH server has no configuration of the previous name
