# The cluster's certificate authority, on the master. Its key never leaves it; every minion can fetch its certificate as
# salt://ca/ca.crt, and trusts it (formulas/base).
{% from "ca/map.jinja" import ca %}
{% from "ca/macros.jinja" import ca_certificate, domains, networks %}

{# While it is being rotated (orch.rotate) there is the next one as well. Each has a name of its own: a program that has
   read the one of before looks on the disk for another name, not for another key. #}
{% set authorities = {"Certificate authority": ("/var/lib/qhub/ca", "ca.crt")} %}
{% if salt["file.file_exists"]("/var/lib/qhub/ca/next/generation") %}
{% do authorities.update({"Next certificate authority": ("/var/lib/qhub/ca/next", "beside.crt")}) %}
{% endif %}

{% for authority, (directory, certificate) in authorities.items() %}
{% set generation = salt["file.read"](directory ~ "/generation") | trim if salt["file.file_exists"](directory ~ "/generation") else "" %}
{{ authority }} has a key:
  x509.private_key_managed:
    - name: {{ directory }}/ca.key
    - algo: ec
    - keysize: 256
    - user: root
    - mode: '0600'
    - makedirs: true

# Where minions fetch it.
{{ authority }} has a certificate:
  x509.certificate_managed:
    - name: /var/lib/qhub/files/ca/{{ certificate }}
    - signing_private_key: {{ directory }}/ca.key
    - subject: {{ ("CN=QHub HPC certificate authority of " ~ pillar.cluster.name ~ (" " ~ generation if generation else "")) | json }}
    - basicConstraints: critical, CA:TRUE, pathlen:0
    - keyUsage: critical, cRLSign, keyCertSign
    - nameConstraints:
        critical: true
        permitted: {{ (domains | unique | map("regex_replace", "^", "DNS:") | list + networks | map("regex_replace", "^", "IP:") | list) | json }}
    - subjectKeyIdentifier: hash
    - days_valid: {{ ca.days_valid }}
    - days_remaining: {{ ca.days_remaining }}
    - mode: '0644'
    - makedirs: true
    - require:
      - x509: {{ authority }} has a key
{% endfor %}

# Each key in it is for root and its service.
Directory of services' certificates exists:
  file.directory:
    - name: /etc/qhub/tls
    - user: root
    - group: root
    - mode: '0755'
    - makedirs: true

Certificate authority's certificate is beside its key:
  file.symlink:
    - name: {{ ca_certificate }}
    - target: ../files/ca/ca.crt
    - require:
      - x509: Certificate authority has a certificate
