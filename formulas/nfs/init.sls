{# The master serves, workers mount; a master that is also a worker has its directories already. #}
{% set roles = grains.get("roles", []) %}

include: {{ (["nfs.server"] if "master" in roles else ["nfs.client"] if "worker" in roles else []) | json }}
