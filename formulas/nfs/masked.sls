{# NFS 4 needs none of the services of the versions before it: they are stopped, and masked before a package starts them. #}
{% from "nfs/map.jinja" import nfs %}

{% for unit in nfs.masked %}
{{ unit }} cannot be started:
  file.symlink:
    - name: /etc/systemd/system/{{ unit }}
    - target: /dev/null
    - require_in:
      - cmd: Services of older NFS versions are stopped
{% endfor %}

Services of older NFS versions are stopped:
  cmd.run:
    - name: systemctl daemon-reload && systemctl stop {{ nfs.masked | join(" ") }}
    - onlyif: systemctl is-active --quiet {{ nfs.masked | join(" ") }}
