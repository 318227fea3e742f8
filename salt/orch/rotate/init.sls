# New secrets in the place of old ones: salt-run state.orchestrate orch.rotate pillar='{class: hub}'
#
#   class   a class, a list of classes, or all: docs/operations/rotation.md
#
# What failed or was interrupted is run again, and completed.
{% set plan = salt["saltutil.runner"]("rotation.plan", arg=[pillar.get("class")]) %}
{% if plan is string %}{{ raise(plan) }}{% endif %}

{% if plan.orch %}
include: {{ plan.orch | json }}
{% endif %}

{% if plan.master %}
Secrets are new:
  salt.runner:
    - name: rotation.renew
    - classes: {{ plan.classes | json }}

Master has the new secrets:
  salt.state:
    - tgt: {{ opts.id | json }}
    - sls: {{ plan.master | json }}
    - queue: 5
    - require:
      - salt: Secrets are new

{% if plan.workers and plan.connected %}
Workers have the new secrets:
  salt.state:
    - tgt: {{ plan.connected | json }}
    - tgt_type: list
    - sls: {{ plan.workers | json }}
    - queue: 5
    - require:
      - salt: Master has the new secrets
    - require_in:
      - salt: Secrets of before are of no use
{% endif %}

Secrets of before are of no use:
  salt.runner:
    - name: rotation.prove
    - classes: {{ plan.classes | json }}
    - require:
      - salt: Master has the new secrets
{% endif %}
