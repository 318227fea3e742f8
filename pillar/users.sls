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
#     ssh_keys:
#       - ssh-ed25519 AAAA... ada@laptop
#     accounts: [physics]            # or with limits of this user: {physics: {max_jobs: 3}}
