groups:
  physics: {gid: 20000}
  chemistry: {gid: 20010}

accounts:
  science:
    description: faculty of science
    organization: university
    flags: [UsersAreCoords]
    user_defaults: {max_submit_jobs: 100, qos: [normal]}
  physics:
    parent: science
    fairshare: 10
    priority: 5
    qos: [normal, long]
    default_qos: normal
    grp_jobs: 100
    grp_jobs_accrue: 50
    grp_submit_jobs: 500
    grp_tres: {cpu: 100, mem: 4T, gres/gpu: 8}
    grp_tres_mins: {cpu: 1000000}
    grp_tres_run_mins: {cpu: 100000}
    grp_wall: "100-00:00:00"
    max_jobs: 50
    max_jobs_accrue: 10
    max_submit_jobs: 200
    max_tres: {cpu: 64}
    max_tres_per_node: {cpu: 32}
    max_tres_mins: {cpu: 500000}
    max_wall: "7-00:00:00"
    min_prio_threshold: 1
  chemistry: {parent: science, fairshare: parent, qos: [+long], max_jobs: null}

qos:
  long:
    description: up to a month
    flags: [DenyOnLimit, NoDecay]
    priority: 10
    preempt: [normal]
    preempt_mode: requeue
    preempt_exempt_time: "01:00:00"
    grace_time: "00:05:00"
    usage_factor: 0.5
    max_wall: "30-00:00:00"
    min_tres: {cpu: 2}
    max_tres_per_user: {cpu: 128}
    max_jobs_per_user: 5

users:
  ada:
    uid: 20001
    full_name: Ada Lovelace
    email: ada@example.org
    shell: /bin/bash
    role: admin
    groups: [physics, chemistry]
    ssh_keys: [ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHtDjXDzqnDz8vUcXLkjwH2e0mQvE7lBFGMd9oJ8m1sE ada@laptop]
    accounts: [physics, chemistry]
    default_account: chemistry
    admin_level: operator
    coordinator_of: [physics]
    wckeys: [thesis, paper]
    default_wckey: thesis
    max_jobs: 20
  bob:
    uid: 20002
    locked: true
    accounts: {physics: {fairshare: 5, any_partition: true, partitions: {GPU: {max_wall: "1-00:00:00"}}}, chemistry: null}

slurm_accounting:
  defaults: {max_submit_jobs: 1000}
  purge: owned
  purge_limit: {count: 10, share: 0.1}
  force: false
  running_jobs: block
  timeout: 600
  resources:
    matlab@licences: {count: 50, allowed: 100, server_type: flexlm, description: matlab}
  reservations:
    course:
      start: "2027-01-31T08:00:00"
      duration: "04:00:00"
      nodes: w[1-2]
      partition: cpu
      users: [ada]
      flags: [IGNORE_JOBS]
