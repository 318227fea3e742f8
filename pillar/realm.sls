# Signing in. The realm is made from people, accounts and services; this adds to it. Passwords are the people's own:
# `qhub-keycloak password NAME` on the master sets a first one, which has to be changed at the first sign-in.
realm: {}
#   name: qhub
#   # Who needs a one-time password beside the password, by role.
#   otp_for: [admin]
#   # Directories whose people may sign in with the passwords they have there. What they may do is said in users.sls.
#   ldap:
#     institute:
#       url: ldaps://ldap.example.org
#       vendor: other                # OpenLDAP; ad is Active Directory
#       users_dn: ou=people,dc=example,dc=org
#       bind_dn: cn=keycloak,dc=example,dc=org
#       bind_password: "..."
#   # Anything else in the form of Keycloak's own realm files: further clients, identity providers, policies, mail.
#   representation:
#     passwordPolicy: length(14) and notUsername
#     smtpServer: {host: mail.example.org, from: hpc@example.org}
#   # What is removed from the realm when it is no longer declared: what was made from here, never more at once than
#   # purge_limit.
#   purge: owned
#   purge_limit: {count: 50, share: 0.25}
