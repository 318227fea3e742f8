# Another key of the Salt master (orch.rotate): minions fetch it by the trust in the present one, then all change over.
# Last of all classes: it restarts the master.
{% set plan = salt["saltutil.runner"]("rotation.plan", arg=["salt"]) %}
{% if plan is string %}{{ raise(plan) }}{% endif %}

Master's next key is made:
  salt.runner:
    - name: master_key.begin
    - order: last

{% if plan.connected %}
Workers go over to it:
  salt.state:
    - tgt: {{ plan.connected | json }}
    - tgt_type: list
    - sls: [salt.next_key]
    - queue: 5
    - order: last
    - require:
      - salt: Master's next key is made
    - require_in:
      - salt: Master has its next key
{% endif %}

Master has its next key:
  salt.runner:
    - name: master_key.change
    - order: last
    - workers: {{ plan.connected | json }}
    - require:
      - salt: Master's next key is made
