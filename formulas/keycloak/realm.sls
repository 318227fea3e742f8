# Who may sign in, and to what: see _modules/qhub_realm.py for how it follows from the pillar.
{% set realm = pillar.realm %}

include:
  - keycloak

Realm that people get their passwords in is known:
  file.managed:
    - name: /etc/keycloak/people.json
    - contents: {{ {"realm": realm.name, "address": "https://" ~ pillar.cluster.public_name ~ "/auth/realms/" ~ realm.name ~ "/account/"} | json | json }}
    - mode: '0644'
    - require:
      - file: Salt's secret in Keycloak is in place

Realm is as declared:
  keycloak_realm.managed:
    - name: {{ realm.name }}
    - representation: __slot__:salt:qhub_realm.representation()
    - purge: {{ realm.purge }}
    - purge_limit: {{ realm.purge_limit | json }}
    - force: {{ realm.force }}
    - require:
      - cmd: Salt may administer Keycloak
