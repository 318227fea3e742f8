# Prometheus's own page, which the suites were run with: no package registry has Grafana.
monitoring: {page: prometheus}
