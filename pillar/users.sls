# People, groups, and who may use how much. One entry is the person everywhere. Removing an entry takes the access away
# and keeps the data.

# Unix groups. Each user also has a group of the same name with gid = uid.
groups: {}
#   physics: {gid: 20000}

# Slurm accounts; whatever is not given is left alone.
accounts: {}
#   science:
#     description: Faculty of science
#   physics:
#     parent: science
#     fairshare: 10
#     grp_tres: {cpu: 100}
#     qos: [normal, long]
#     default_qos: normal

# Slurm qualities of service. "normal" always exists.
qos: {}
#   long: {max_wall: "7-00:00:00", priority: 10}

users: {}
#   ada:
#     uid: 20001
#     full_name: Ada Lovelace
#     email: ada@example.org
#     groups: [physics]
#     role: admin                    # in the web services: admin, developer (the default) or viewer; admins reach
#                                    # everybody's notebook server
#     locked: true                   # may not sign in for now; everything else stays
#     ssh_keys:
#       - ssh-ed25519 AAAA... ada@laptop
#     accounts: [physics]            # or with limits of this user: {physics: {max_jobs: 3}}

# Limits of every user's association that nothing nearer sets, and what is removed from Slurm's accounting when it is no
# longer declared here: only what was made from here (owned), and never more than purge_limit at once.
slurm_accounting: {}
#   defaults: {max_submit_jobs: 1000}
#   purge: owned
#   purge_limit: {count: 50, share: 0.25}
