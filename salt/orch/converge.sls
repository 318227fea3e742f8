# Bring every connected worker that is not in service into it. Takes no argument; costs the master one run, however many
# workers join. The engine `converge` starts it; by hand: salt-run state.orchestrate orch.converge
{% set joining = salt["saltutil.runner"]("membership.joining") %}
{% if joining is string %}{{ raise(joining) }}{% endif %}

{% if joining %}
Cluster knows its members:
  salt.state:
    - tgt: {{ opts.id | json }}
    - sls: [names.server, nfs, firewall, prometheus.targets, sshd.known_hosts]
    - queue: 5

# One worker that fails does not hold up the others: the last step tells each one's fate.
Joining workers are configured:
  salt.state:
    - tgt: {{ joining | json }}
    - tgt_type: list
    - highstate: true
    - queue: 5
    - require:
      - salt: Cluster knows its members

Joining workers run jobs:
  salt.runner:
    - name: membership.prove
    - nodes: {{ joining | json }}
{% endif %}
