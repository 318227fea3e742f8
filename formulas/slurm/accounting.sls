# Who may use how much: pillar/users.sls in Slurm's accounting database.
include:
  - slurm.controller
  - people

Accounts, associations and QOS are as declared:
  slurm_account.managed:
    - name: {{ pillar.cluster.name }}
    - pillar: true
    - require:
      # Slurm has no partition any more whose QOS or account is removed.
      - cmd: Slurm has loaded its configuration
      - file: Users' passwd entries are known
