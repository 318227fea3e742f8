# Who may sign in, and to what: see _modules/qhub_realm.py for how it follows from the pillar.
{% set realm = pillar.realm %}

include:
  - keycloak

Realm is as declared:
  keycloak_realm.managed:
    - name: {{ realm.name }}
    - representation: __slot__:salt:qhub_realm.representation()
    - purge: {{ realm.purge }}
    - purge_limit: {{ realm.purge_limit | json }}
    - force: {{ realm.force }}
    - require:
      - cmd: Salt may administer Keycloak
