# How people see the cluster's state, and who is told when it breaks. Only the master gets this file.
monitoring:
  # What is at /monitoring/: grafana, or prometheus for Prometheus's own page behind the same sign-in.
  page: grafana

# Who is told of alerts (formulas/alertmanager has all settings):
#
# alertmanager:
#   mail:
#     to: [admins@example.org]
#     from: hpc@example.org
#     smarthost: mail.example.org:587
#     username: hpc
#     password: "..."
#   webhooks: [https://chat.example.org/hooks/hpc]

# How long is remembered, and rules of the site's own (formulas/prometheus):
#
# prometheus:
#   retention: {time: 1y, size: 100GB}
#   rules:
#     - name: site
#       rules:
#         - {alert: ScratchFull, expr: 'node_filesystem_avail_bytes{mountpoint="/scratch"} < 1e12', for: 10m, labels: {severity: warning}}
