# What the SSH gateway needs on a machine that runs jobs.
{% from "sshgate/map.jinja" import sshgate %}

# Where there was none it is for jobs alone.
System's sshd does not come with it:
  file.symlink:
    - name: /etc/systemd/system/ssh.service
    - target: /dev/null
    - unless: test -x /usr/sbin/sshd

Programs for SSH inside jobs are installed:
  pkg.installed:
    - pkgs: {{ sshgate.worker.packages | json }}
    - install_recommends: false
    - require:
      - file: System's sshd does not come with it

SSH inside jobs is installed:
  file.managed:
    - name: /usr/local/libexec/qhub-sshgate-step
    - source: salt://sshgate/files/qhub-sshgate-step
    - makedirs: true
    - mode: '0755'
    - require:
      - pkg: Programs for SSH inside jobs are installed
