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
    - connection:
        url: http://127.0.0.1:8080/auth
        client_id: salt
        client_secret_file: /etc/keycloak/salt.secret
    - require:
      - cmd: Salt may administer Keycloak
