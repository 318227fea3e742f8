# Apply the pillar to the whole cluster, the master first: salt-run state.orchestrate orch.apply
{% set members = salt["saltutil.runner"]("membership.members") %}
{% if members is string %}{{ raise(members) }}{% endif %}
{% set master = opts.id %}

Master is as declared:
  salt.state:
    - tgt: {{ master | json }}
    - highstate: true
    - queue: 5

# Those that are switched off are brought up to date when they come.
{% set asleep = salt["saltutil.runner"]("membership.asleep") %}
{% if asleep %}
Workers that are switched off are expected:
  salt.runner:
    - name: membership.expect_absent
{% endif %}

{% set workers = members | list | reject("equalto", master) | reject("in", asleep) | list %}
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
