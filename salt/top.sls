# A role is a list of formulas (roles/). Minions claim roles by grain; the pillar, chosen by id, has the last word.
base:
{% if grains.get("roles", []) | sort != pillar.get("roles", []) | sort %}
  '*':
    - roles.refused
{% else %}
{% for role in ("master", "worker") %}
  'roles:{{ role }}':
    - match: grain
    - roles.{{ role }}
{% endfor %}
{% endif %}
