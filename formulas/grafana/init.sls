# Grafana, behind the front door. People are Keycloak's; what there is to see is in files, and Prometheus has the numbers.
{% from "grafana/map.jinja" import grafana %}
{% from "prometheus/map.jinja" import prometheus %}
{% from "firewall/macros.jinja" import local %}
{% from "prometheus/macros.jinja" import scrape %}
{% from "postgresql/map.jinja" import postgresql %}
{% from "postgresql/macros.jinja" import database %}
{% from "artifacts/macros.jinja" import directory, here, only %}
{% from "traefik/macros.jinja" import routes %}
{% if pillar.monitoring.page == "grafana" %}
{% if grafana.developer_role not in ("Viewer", "Editor") %}
{{ raise("grafana.developer_role: " ~ grafana.developer_role ~ " is not allowed: Viewer or Editor") }}
{% endif %}
{% set rendering = grafana.config.get("rendering") or {} %}
{% if rendering.get("server_url") and not rendering.get("renderer_token") %}
{{ raise("grafana.config.rendering.server_url: " ~ rendering.server_url ~ " needs a renderer_token beside it: Grafana would not start") }}
{% endif %}
{% set root = "https://" ~ pillar.cluster.public_name ~ "/monitoring/" %}
{% set realm = "https://" ~ pillar.cluster.public_name ~ "/auth/realms/" ~ pillar.realm.name ~ "/protocol/openid-connect/" %}
{% set secrets = {
  "client_secret": "grafana_client_secret", "admin_password": "grafana_admin_password", "secret_key": "grafana_secret_key",
} %}
{#- The unit hands Grafana its secrets there. -#}
{% set secret = "$__file{/run/credentials/grafana-server.service/" %}
{#- Data sources that Grafana brings beside Prometheus, each a process. -#}
{% set unused = [
  "cloudwatch", "elasticsearch", "grafana-azure-monitor-datasource", "grafana-postgresql-datasource",
  "grafana-pyroscope-datasource", "grafana-testdata-datasource", "graphite", "influxdb", "jaeger", "loki", "mssql", "mysql",
  "opentsdb", "parca", "stackdriver", "tempo", "zipkin",
] %}
{% set config = salt["slsutil.merge"]({
  "paths": {
    "data": "/var/lib/grafana", "logs": "/var/lib/grafana/log", "plugins": "/var/lib/grafana/plugins",
    "provisioning": "/etc/grafana/provisioning",
    "bundled_plugins": "/opt/qhub/grafana/data/plugins-bundled",
  },
  "server": {
    "http_addr": "127.0.0.1", "http_port": grafana.port, "domain": pillar.cluster.public_name, "root_url": root,
    "serve_from_sub_path": true,
  },
  "database": {
    "type": "postgres", "host": "/run/postgresql:" ~ postgresql.config.port, "name": "grafana", "user": "grafana",
    "ssl_mode": "disable", "max_open_conn": 20,
  },
  "security": {
    "admin_user": "break-glass", "admin_password": secret ~ "admin_password}", "secret_key": secret ~ "secret_key}",
    "cookie_secure": true, "content_security_policy": true, "disable_gravatar": true,
  },
  "secrets_manager.encryption.secret_key.v1": {"secret_key": secret ~ "secret_key}"},
  "users": {"allow_sign_up": false, "allow_org_create": false},
  "auth": {"login_maximum_inactive_lifetime_duration": "12h", "login_maximum_lifetime_duration": "24h"},
  "auth.anonymous": {"enabled": false, "hide_version": true},
  "auth.basic": {"enabled": false},
  "auth.generic_oauth": {
    "enabled": true, "auto_login": true, "name": "the cluster", "allow_sign_up": true,
    "client_id": "grafana", "client_secret": secret ~ "client_secret}", "scopes": "openid profile",
    "use_pkce": true, "use_refresh_token": true,
    "auth_url": realm ~ "auth", "token_url": realm ~ "token", "api_url": realm ~ "userinfo",
    "signout_redirect_url": realm ~ "logout?client_id=grafana&post_logout_redirect_uri=" ~ root | urlencode,
    "login_attribute_path": "preferred_username", "name_attribute_path": "name",
    "email_attribute_path": "join('@', [preferred_username, '" ~ pillar.cluster.domain ~ "'])",
    "role_attribute_path":
      "contains(roles[*], 'admin') && 'Admin' || contains(roles[*], 'developer') && '" ~ grafana.developer_role
      ~ "' || contains(roles[*], 'viewer') && 'Viewer'",
    "role_attribute_strict": true, "allow_assign_grafana_admin": false,
  },
  "analytics": {
    "reporting_enabled": false, "check_for_updates": false, "check_for_plugin_updates": false, "feedback_links_enabled": false,
  },
  "news": {"news_feed_enabled": false},
  "plugins": {
    "preinstall_disabled": true, "preinstall_auto_update": false, "plugin_admin_enabled": false, "public_key_retrieval_disabled": true,
    "disable_plugins": unused | join(","),
  },
  "public_dashboards": {"enabled": false},
  "snapshots": {"enabled": false},
  "cloud_migration": {"enabled": false},
  "provisioning": {"enabled": false},
  "unified_alerting": {"enabled": false},
  "dashboards": {"default_home_dashboard_path": "/etc/grafana/dashboards/" ~ grafana.home ~ ".json"},
  "log": {"mode": "console", "level": "warn"},
}, grafana.config) %}

include:
  - artifacts
  - base
  - firewall
  - keycloak
  - postgresql
  - prometheus
  - traefik

{{ here("Grafana is here", "grafana") }}

Grafana is of this version:
  file.symlink:
    - name: /opt/qhub/grafana
    - target: {{ directory("grafana") }}
    - require:
      - cmd: Grafana is here

Grafana's user exists:
  user.present:
    - name: grafana
    - system: true
    - usergroup: true
    - home: /var/lib/grafana
    - createhome: false
    - shell: /usr/sbin/nologin
    - fullname: Grafana

{{ database("grafana") }}

Grafana's configuration directory exists:
  file.directory:
    - name: /etc/grafana
    - mode: '0755'

Grafana's secrets are root's:
  file.directory:
    - name: /etc/grafana/secrets
    - mode: '0700'
    - require:
      - file: Grafana's configuration directory exists
{% for name, key in secrets | dictsort %}
Grafana's {{ name }} is in place:
  file.managed:
    - name: /etc/grafana/secrets/{{ name }}
    - contents_pillar: secrets:{{ key }}
    - contents_newline: false
    - mode: '0600'
    - show_changes: false
    - require:
      - file: Grafana's secrets are root's
    - watch_in:
      - service: Grafana is running
{% endfor %}

Grafana is configured:
  file.managed:
    - name: /etc/grafana/grafana.ini
    - source: salt://grafana/files/grafana.ini.jinja
    - template: jinja
    - context: {config: {{ config | json }}}
    - mode: '0644'
    - require:
      - file: Grafana's configuration directory exists

{% for name, content in {
  "datasources": {"prune": true, "datasources": [{
    "name": "Prometheus", "uid": "prometheus", "type": "prometheus", "access": "proxy", "url": "http://127.0.0.1:9090",
    "isDefault": true, "editable": false,
    "jsonData": {"httpMethod": "POST", "timeInterval": prometheus.interval ~ "s", "manageAlerts": false},
  }]},
  "dashboards": {"providers": [
    {"name": "cluster", "folder": "Cluster", "folderUid": "cluster", "type": "file", "options": {"path": "/etc/grafana/dashboards"}},
    {"name": "site", "folder": "Site", "folderUid": "site", "type": "file", "options": {"path": "/etc/grafana/site"}},
  ]},
} | dictsort %}
Grafana is told of its {{ name }}:
  file.serialize:
    - name: /etc/grafana/provisioning/{{ name }}/qhub.yaml
    - dataset: {{ dict({"apiVersion": 1}, **content) | json }}
    - serializer: yaml
    - makedirs: true
    - mode: '0644'
    - require:
      - file: Grafana's configuration directory exists
    - watch_in:
      - service: Grafana is running
{% endfor %}

# Grafana logs an error at each start for each of its directories that does not exist.
{% for name in ("access-control", "alerting", "notifiers", "plugins") %}
Grafana's directory of {{ name }} exists:
  file.directory:
    - name: /etc/grafana/provisioning/{{ name }}
    - mode: '0755'
    - makedirs: true
    - require:
      - file: Grafana's configuration directory exists
    - require_in:
      - service: Grafana is running
{% endfor %}

# Grafana looks for changed dashboards every few seconds.
Grafana's dashboards are in place:
  file.recurse:
    - name: /etc/grafana/dashboards
    - source: salt://grafana/files/dashboards
    - file_mode: '0644'
    - dir_mode: '0755'
    - clean: true
    - require:
      - file: Grafana's configuration directory exists

# A file that the user grafana cannot read would be missing, with a line in the journal only.
Directory of the site's own dashboards is here:
  file.directory:
    - name: /etc/grafana/site
    - user: root
    - group: root
    - dir_mode: '0755'
    - file_mode: '0644'
    - recurse: [mode]
    - require:
      - file: Grafana's configuration directory exists

Grafana has a unit:
  file.managed:
    - name: /etc/systemd/system/grafana-server.service
    - source: salt://grafana/files/grafana-server.service.jinja
    - template: jinja
    - context:
        secrets: {{ secrets | list | sort | json }}
        database: {{ postgresql.service | json }}
    - mode: '0644'

Grafana is running:
  service.running:
    - name: grafana-server
    - enable: true
    - require:
      - user: Grafana's user exists
      - cmd: Database grafana exists
      - file: Grafana's dashboards are in place
      - file: Directory of the site's own dashboards is here
    - watch:
      - file: Grafana is of this version
      - file: Grafana is configured
      - file: Grafana has a unit
      - cmd: System trusts the certificates

{{ local("grafana", {9090: ["grafana"], grafana.port: ["traefik", "prometheus"]}) }}

{{ scrape("grafana", {"metrics_path": "/monitoring/metrics", "static_configs": [{"targets": ["127.0.0.1:" ~ grafana.port]}]}) }}

{{ only("Grafana's older versions are removed", "grafana", "Grafana is running") }}

{#- Signing in works by one name: requests by another name or an address are sent to that name. Metrics are for this
    machine. Links in alerts lead to paths of Prometheus's page: /graph and /alerts. -#}
{% set paths, site = "(Path(`/monitoring`) || PathPrefix(`/monitoring/`))", pillar.cluster.public_name %}
{% set host = "Host(`" ~ site ~ "`)" %}
{% set entry = {"entryPoints": ["websecure"], "service": "grafana"} %}
{{ routes("grafana", {
  "http": {
    "routers": {
      "grafana": dict(entry, rule=paths ~ " && " ~ host ~ " && !PathPrefix(`/monitoring/metrics`)"),
      "grafana-sign-in": dict(entry, rule=host ~ " && PathPrefix(`/monitoring/login`)", priority=1000, middlewares=["auth-ratelimit"]),
      "grafana-alerts": dict(entry, rule=host ~ " && (Path(`/monitoring/graph`) || Path(`/monitoring/alerts`))", priority=1000,
                             middlewares=["grafana-alerts"]),
      "grafana-elsewhere": dict(entry, rule=paths ~ " && !" ~ host, middlewares=["grafana-here"]),
    },
    "middlewares": {
      "grafana-alerts": {"redirectRegex": {"regex": "^.*$", "replacement": root ~ "d/qhub-alerts"}},
      "grafana-here": {"redirectRegex": {"regex": "^https?://[^/]+(.*)$", "replacement": "https://" ~ site ~ "${1}"}},
    },
    "services": {"grafana": {"loadBalancer": {"servers": [{"url": "http://127.0.0.1:" ~ grafana.port}]}}},
  },
}) }}
{% else %}

Grafana is not running:
  service.dead:
    - name: grafana-server
    - enable: false
    - onlyif: test -e /etc/systemd/system/grafana-server.service

# They are in the pillar; a rotation would leave these as they were.
Grafana's secrets are removed:
  file.absent:
    - name: /etc/grafana/secrets
    - require:
      - service: Grafana is not running
{% endif %}
