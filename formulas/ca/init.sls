# The cluster's certificate authority, on the master. Its key never leaves it; every minion can fetch its certificate as
# salt://ca/ca.crt, and trusts it (formulas/base).
{% from "ca/map.jinja" import ca %}
{% from "ca/macros.jinja" import ca_key, ca_certificate, domains, networks %}

Certificate authority has a key:
  x509.private_key_managed:
    - name: {{ ca_key }}
    - algo: ec
    - keysize: 256
    - user: root
    - mode: '0600'
    - makedirs: true

# Where minions fetch it.
Certificate authority has a certificate:
  x509.certificate_managed:
    - name: /var/lib/qhub/files/ca/ca.crt
    - signing_private_key: {{ ca_key }}
    - subject: {{ ("CN=QHub HPC certificate authority of " ~ pillar.cluster.name) | json }}
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
      - x509: Certificate authority has a key

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
