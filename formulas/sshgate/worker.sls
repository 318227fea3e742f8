# What the SSH gateway needs on a machine that runs jobs.
{% from "sshgate/map.jinja" import sshgate %}

include:
  - jupyterhub.worker
  - sshd

Programs for SSH inside jobs are installed:
  pkg.installed:
    - pkgs: {{ sshgate.worker.packages | json }}
    - install_recommends: false

# Whoever comes has proved it with a key. Others cannot read what is made, one's group may write: people have their own.
# Only PAM can say so: sshd by itself lets no group write.
SSH inside jobs has a umask:
  file.managed:
    - name: /etc/pam.d/qhub-sshgate
    - contents: |
        # Written by Salt (formulas/sshgate).
        auth    required pam_deny.so
        account required pam_permit.so
        session required pam_umask.so umask=0007
    - mode: '0644'

SSH inside jobs is installed:
  file.managed:
    - name: /usr/local/libexec/qhub-sshgate-step
    - source: salt://sshgate/files/qhub-sshgate-step
    - makedirs: true
    - mode: '0755'
    - require:
      - pkg: Programs for SSH inside jobs are installed
      - pkg: SSH server is installed
      - file: SSH inside jobs has a umask
      - file: Program qhub-job-environment is installed
