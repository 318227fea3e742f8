realm:
  name: grace
  otp_for: [admin]
  ldap:
    institute:
      url: ldaps://ldap.example.org
      vendor: other
      users_dn: ou=people,dc=example,dc=org
      groups_dn: ou=groups,dc=example,dc=org
      bind_dn: cn=keycloak,dc=example,dc=org
      bind_password: ${vault.ldap}
      username_attribute: uid
      uuid_attribute: entryUUID
      user_filter: (objectClass=person)
    campus: {url: ldap://ad.example.org, start_tls: true, vendor: ad, users_dn: "cn=users,dc=ad,dc=example,dc=org"}
  representation: {passwordPolicy: length(14)}
  purge: owned
  purge_limit: {count: 10, share: 0.1}
  force: false
