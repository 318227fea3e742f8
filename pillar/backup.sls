# What is backed up every night, where to, and how long it is kept: see formulas/backup/defaults.yaml. Only the master gets
# this file, so the credentials of a repository may be here.
backup: {}
#   repository: s3:https://objects.example.org/our-cluster
#   environment: {AWS_ACCESS_KEY_ID: ..., AWS_SECRET_ACCESS_KEY: ...}
#   keep: {daily: 30, monthly: 24}
