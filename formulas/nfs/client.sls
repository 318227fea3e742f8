{% from "nfs/map.jinja" import nfs %}
{% set client = nfs.client %}
{% set master = pillar.get("cluster", {}).get("master", {}).get("id", "master") %}
{% set units = "/etc/systemd/system/" %}

{# systemd's automount rather than autofs: no daemon of its own to die, and a unit, a journal and a time limit per
   mount. unit name -> export; a server does not mount a directory over itself. #}
{% set mounts = {} %}
{% for name, export in nfs.exports | dictsort if export and client.enabled %}
{%   set mount = export.get("mount") or export.path %}
{%   if grains.id != (client.server or master) or mount != export.path %}
{%     set unit = mount.strip("/").replace("-", "\\x2d").replace("/", "-") %}
{%     do mounts.update({unit: {"name": name, "mount": mount, "path": export.path, "access": export.access,
                                "give_up_after": export.get("give_up_after", client.give_up_after)}}) %}
{%   endif %}
{% endfor %}

{% if mounts %}
include:
  - nfs.masked

NFS client is installed:
  pkg.installed:
    - pkgs: {{ client.packages | json }}
    - require:
      - sls: nfs.masked
{% endif %}

{% for unit, mount in mounts.items() %}
{% for kind in ["mount", "automount"] %}
{{ mount.mount }} has its {{ kind }} unit:
  file.managed:
    - name: {{ (units ~ unit ~ "." ~ kind) | json }}
    - source: salt://nfs/files/{{ kind }}.jinja
    - template: jinja
    - context: {{ {"mount": mount, "client": client, "server": client.server or master} | json }}
    - mode: '0644'
    - require:
      - pkg: NFS client is installed
{% endfor %}

{# Changed options come into force when the directory is mounted next: nothing in use is taken away. #}
{{ mount.mount }} is mounted on first use:
  service.running:
    - name: {{ (unit ~ ".automount") | json }}
    - enable: true
    - require:
      - file: {{ mount.mount }} has its mount unit
      - file: {{ mount.mount }} has its automount unit
{% endfor %}

{% for file in salt["file.find"](units, maxdepth=1, type="f", name="*.automount", grep="formulas/nfs") | sort %}
{%   set unit = file.split("/")[-1].removesuffix(".automount") %}
{%   if unit not in mounts %}
{%     for kind in ["automount", "mount"] %}
{{ unit }} is no longer shared ({{ kind }}):
  service.dead:
    - name: {{ (unit ~ "." ~ kind) | json }}
    - enable: false
  file.absent:
    - name: {{ (units ~ unit ~ "." ~ kind) | json }}
    - require:
      - service: {{ unit }} is no longer shared ({{ kind }})
{%     endfor %}
{%   endif %}
{% endfor %}
