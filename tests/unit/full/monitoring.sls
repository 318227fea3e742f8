monitoring: {page: prometheus}
alertmanager:
  mail: {to: [ops@example.org], from: hpc@example.org, smarthost: mail.example.org:587, username: hpc, password: not a secret}
  webhooks: [https://chat.example.org/hooks/hpc]
  group_wait: 10
  config: {inhibit_rules: [{source_matchers: [severity = critical], target_matchers: [severity = warning], equal: [alertname]}]}
prometheus:
  interval: 30
  retention: {time: 1y, size: 100GB}
  rules: [{name: site, rules: [{alert: ScratchFull, expr: up == 0, for: 10m}]}]
  config: {global: {external_labels: {cluster: grace}}}
exporters:
  mysqld: {options: {collect.info_schema.tables: true, collect.info_schema.innodb_metrics: null}}
  blackbox: {modules: {icmp: {prober: icmp}}, targets: {http: ["https://www.example.org/"], icmp: [10.20.0.1]}}
slurm_exporter: {interval: 60}
