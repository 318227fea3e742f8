# Take a worker out of service for good: salt-run state.orchestrate orch.remove pillar='{node: w2}'
#
#   node      its id
#   reason    what users see while it is drained (default: removed)
#   timeout   seconds to wait for its jobs (default: 3600); after that it stays drained and nothing more is done
{% set members = salt["saltutil.runner"]("membership.members") %}
{% if members is string %}{{ raise(members) }}{% endif %}
{% set master = opts.id %}
{% set node = pillar.get("node") %}
{% if node == master or node not in members %}
{{ raise("node: " ~ node ~ " is not a worker of this cluster; there are: " ~ members | list | reject("equalto", master) | join(", ")) }}
{% endif %}

No job runs on {{ node }}:
  salt.runner:
    - name: membership.drain
    - node: {{ node | json }}
    - reason: {{ pillar.get("reason", "removed") | json }}
    - timeout: {{ pillar.get("timeout", 3600) | int }}

{% if node in salt["saltutil.runner"]("manage.up") %}
{{ node }} has left:
  salt.state:
    - tgt: {{ node | json }}
    - tgt_type: list
    - sls: [slurm.removed]
    - queue: 5
    - require:
      - salt: No job runs on {{ node }}
    - require_in:
      - salt: {{ node }} is forgotten
{% endif %}

{{ node }} is forgotten:
  salt.runner:
    - name: membership.forget
    - node: {{ node | json }}
    - require:
      - salt: No job runs on {{ node }}

Cluster knows its members:
  salt.state:
    - tgt: {{ master | json }}
    - sls: [names.server, nfs, firewall, prometheus.targets, sshd.known_hosts]
    - queue: 5
    - require:
      - salt: {{ node }} is forgotten
