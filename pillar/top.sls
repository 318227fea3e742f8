# Who gets what. Only the minion's id decides, as the master has authenticated it: what a minion says about itself
# (grains) never does. An id that is neither the master's nor in nodes.sls gets nothing.
{% import_yaml "cluster.sls" as cluster_file %}
{% import_yaml "nodes.sls" as nodes_file %}
{% set master = cluster_file.cluster.master.id %}

base:
{% if opts.id == master or opts.id in (nodes_file.nodes or {}) %}
  {{ opts.id | json }}:
    - match: list
    - cluster
    - nodes
    - partitions
    - secrets.nodes
{% if opts.id == master %}
    - users
    - realm
    - environments
    - backup
    - monitoring
    - secrets.master
{% endif %}
{% else %}
  {}
{% endif %}
