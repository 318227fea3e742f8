# A role is a list of formulas (roles/). Minions claim roles by grain; the pillar, chosen by id, has the last word.
{% if grains.get("roles", []) | sort != pillar.get("roles", []) | sort %}
{{ raise("Minion " ~ grains.id ~ " claims the roles " ~ grains.get("roles", []) ~ ", but the pillar gives it " ~ pillar.get("roles", [])
         ~ ". Name it in nodes.sls, or bootstrap it again: salt-ssh " ~ grains.id ~ " state.apply bootstrap.minion") }}
{% endif %}

base:
{% for role in ("master", "worker") %}
  'roles:{{ role }}':
    - match: grain
    - roles.{{ role }}
{% endfor %}
