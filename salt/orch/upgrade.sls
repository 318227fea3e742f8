# Bring the cluster to what the checkout and the packages' sources have, one thing after the other, and stop at the first
# that fails: salt-run state.orchestrate orch.upgrade (docs/operations/upgrade.md; salt-run upgrade.plan tells what comes)
#
#   batch     workers that are out of service at a time (default: 1)
#   timeout   seconds to wait for the jobs of each batch (default: 3600); after that it stays drained, and this stops
#
# What failed or was interrupted is run again, and goes on.
{% set arguments = {"batch": pillar.get("batch", 1), "timeout": pillar.get("timeout", 3600)} %}
{% set plan = salt["saltutil.runner"]("upgrade.preflight", kwarg=arguments) %}
{% if plan is string %}{{ raise(plan) }}{% endif %}
{% set master = opts.id %}

{% if plan.backup %}
Backup is made:
  salt.runner:
    - name: backup.make
    - failhard: true
{% endif %}

Upgrade is begun:
  salt.runner:
    - name: upgrade.begin
    - failhard: true

# Slurm: slurmdbd, then slurmctld, on the master; then its daemons on the workers.
{% for batch in plan.batches %}
{% set names = batch.nodes | join(", ") %}
No job runs on {{ names }}:
  salt.runner:
    - name: membership.drain
    - node: {{ batch.nodes | json }}
    - reason: {{ plan.reason | json }}
    - timeout: {{ plan.timeout }}
    - failhard: true

Slurm is new on {{ names }}:
  salt.state:
    - tgt: {{ batch.nodes | json }}
    - tgt_type: list
    - sls: [slurm.upgraded]
    - queue: 5
    - failhard: true

Slurm on {{ names }} is as declared:
  salt.state:
    - tgt: {{ batch.nodes | json }}
    - tgt_type: list
    {% if batch.sls %}
    - sls: {{ batch.sls | json }}
    {% else %}
    - highstate: true
    {% endif %}
    - queue: 5
    - failhard: true

{% if batch.prove %}
Jobs run on {{ batch.prove | join(", ") }}:
  salt.runner:
    - name: membership.prove
    - nodes: {{ batch.prove | json }}
    - failhard: true
{% endif %}
{% endfor %}

{% if plan.others %}
Other workers are as declared:
  salt.state:
    - tgt: {{ plan.others | json }}
    - tgt_type: list
    - highstate: true
    - queue: 5
    - failhard: true
{% endif %}

{% for stage in plan.stages %}
New {{ stage.name }} is there:
  salt.state:
    - tgt: {{ master | json }}
    - sls: {{ stage.sls | json }}
    - queue: 5
    - failhard: true

New {{ stage.name }} works:
  salt.runner:
    - name: upgrade.prove
    - checks: {{ stage.checks | json }}
    - failhard: true
{% endfor %}

Master is as declared:
  salt.state:
    - tgt: {{ master | json }}
    - highstate: true
    - queue: 5
    - failhard: true

All is well:
  salt.runner:
    - name: upgrade.end
    - failhard: true
