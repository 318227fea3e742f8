# What fetches programs that are no Debian packages; see macros.jinja.
Fetcher of programs is installed:
  file.managed:
    - name: /usr/local/sbin/qhub-fetch
    - source: salt://bootstrap/fetch.py
    - mode: '0755'

List of programs is here:
  file.managed:
    - name: /etc/qhub/artifacts.json
    - source: salt://artifacts.json
    - makedirs: true
    - mode: '0644'

Installer of Python environments is here:
  file.managed:
    - name: /usr/local/sbin/qhub-environment
    - source: salt://bootstrap/environment.sh
    - mode: '0755'
