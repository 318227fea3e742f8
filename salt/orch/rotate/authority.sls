# Another certificate authority (orch.rotate): all trust both while certificates are issued anew, then that one alone.
{% set plan = salt["saltutil.runner"]("rotation.plan", arg=["authority"]) %}
{% if plan is string %}{{ raise(plan) }}{% endif %}

Next authority is begun:
  salt.runner:
    - name: authority.begin

Master trusts both authorities:
  salt.state:
    - tgt: {{ opts.id | json }}
    - sls: [base]
    - queue: 5
    - require:
      - salt: Next authority is begun

{% if plan.connected %}
Workers trust both authorities:
  salt.state:
    - tgt: {{ plan.connected | json }}
    - tgt_type: list
    - sls: [base]
    - queue: 5
    - require:
      - salt: Master trusts both authorities
    - require_in:
      - salt: Next authority certifies
{% endif %}

Next authority certifies:
  salt.runner:
    - name: authority.change
    - require:
      - salt: Master trusts both authorities

Certificates are from it:
  salt.state:
    - tgt: {{ opts.id | json }}
    - sls: [base, traefik]
    - queue: 5
    - require:
      - salt: Next authority certifies

Authority of before is withdrawn:
  salt.runner:
    - name: authority.end
    - require:
      - salt: Certificates are from it

All trust the new authority alone:
  salt.state:
    - tgt: {{ ([opts.id] + plan.connected) | json }}
    - tgt_type: list
    - sls: [base]
    - queue: 5
    - require:
      - salt: Authority of before is withdrawn

Authority of before is of no use:
  salt.runner:
    - name: authority.prove
    - require:
      - salt: All trust the new authority alone
