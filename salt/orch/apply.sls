# Apply the pillar to the whole cluster, the master first: salt-run state.orchestrate orch.apply
{% set members = salt["saltutil.runner"]("membership.members") %}
{% if members is string %}{{ raise(members) }}{% endif %}
{% set master = opts.id %}

Master is as declared:
  salt.state:
    - tgt: {{ master | json }}
    - highstate: true
    - queue: 5

{% set workers = members | list | reject("equalto", master) | list %}
{% if workers %}
Workers are as declared:
  salt.state:
    - tgt: {{ workers | json }}
    - tgt_type: list
    - highstate: true
    - queue: 5
    - require:
      - salt: Master is as declared
{% endif %}
