{# NFS 4 needs none of the services of the versions before it. #}
{% from "nfs/map.jinja" import nfs %}

{% for unit in nfs.masked %}
{{ unit }} cannot be started:
  service.masked:
    - name: {{ unit }}

{{ unit }} is stopped:
  service.dead:
    - name: {{ unit }}
    - require:
      - service: {{ unit }} cannot be started
{% endfor %}
