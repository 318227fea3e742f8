# What makes `Gateway()` find this cluster's Dask-Gateway, on every node and in every environment.
{% from "traefik/macros.jinja" import inside %}
{% set config = {"gateway": {
  "address": "https://" ~ inside ~ "/gateway",
  "public-address": "https://" ~ pillar.cluster.public_name ~ "/gateway",
  "proxy-address": "gateway://" ~ inside ~ ":8786",
  "auth": {"type": "jupyterhub"},
}} %}

Dask knows its gateway:
  file.serialize:
    - name: /etc/dask/gateway.yaml
    - dataset: {{ config | json }}
    - serializer: yaml
    - makedirs: true
    - mode: '0644'
