# salt-cloud, by which the pillar's nodes join: salt-cloud -p worker NAME. Other clouds have files of their own beside these
# (docs/operations/clouds.md).
{% from "salt/map.jinja" import salt_settings %}
{% set files = {
  "cloud.providers.d": {"nodes": {
    "driver": "saltify",
    "ssh_keyfile": "/root/.ssh/id_ed25519",
    "known_hosts_file": "/root/.ssh/known_hosts",
    "script": "/etc/qhub/checkout/salt/bootstrap/deploy.sh",
    "script_args": [pillar.artifacts.mirror] if pillar.artifacts.mirror else [],
    "minion": {
      "master": pillar.cluster.master.address,
      "pki_dir": "/etc/salt/pki/minion",
      "log_level_logfile": "quiet",
      "encryption_algorithm": "OAEP-SHA224",
      "signing_algorithm": "PKCS1v15-SHA224",
      "lazy_loader_strict_matching": true,
    },
    "deploy": false,
  }},
  "cloud.profiles.d": {"worker": {"provider": "nodes"}},
} %}

{% for directory, content in files.items() %}
salt-cloud has its {{ directory }}:
  file.serialize:
    - name: /etc/salt/{{ directory }}/qhub.conf
    - dataset: {{ content | json }}
    - serializer: yaml
    - makedirs: true
    - mode: '0644'
{% endfor %}
