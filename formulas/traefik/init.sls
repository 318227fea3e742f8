# The front door.
{% from "traefik/map.jinja" import traefik %}
{% from "firewall/macros.jinja" import allow, local %}
{% from "traefik/macros.jinja" import routes %}
{% from "prometheus/macros.jinja" import scrape %}
{% from "artifacts/macros.jinja" import directory, here, only %}
{% from "ca/macros.jinja" import certificate, master_names, master_addresses %}
{% set source = traefik.certificate.source %}
{% set files = traefik.certificate.files %}
{% set edge = "site" if source == "files" else "traefik" %}

include:
  - artifacts
  - ca
  - firewall
  - prometheus

{{ allow("traefik", "world", tcp=[80, 443, 8022, 8786]) }}
{# Traefik pings itself there, for its watchdog. #}
{{ local("traefik", {8082: ["prometheus", "traefik"]}) }}

{{ here("Traefik is here", "traefik") }}

Traefik is of this version:
  file.symlink:
    - name: /opt/qhub/traefik
    - target: {{ directory("traefik") }}
    - require:
      - cmd: Traefik is here

Traefik's user exists:
  user.present:
    - name: traefik
    - system: true
    - usergroup: true
    - home: /var/lib/traefik
    - createhome: false
    - shell: /usr/sbin/nologin

{# Traefik asks nobody for a certificate that it has one for. #}
{% set names = master_names | reject("equalto", pillar.cluster.public_name) | list if source == "acme" else master_names %}
{{ certificate("traefik", group="traefik", user={"user": "Traefik's user exists"}, names=names) }}

{% if source == "files" %}
# Refused, and the one in use kept, unless it is fit for the front door.
Site's certificate is in place:
  certificate.installed:
    - name: /etc/qhub/tls/site.crt
    - key: /etc/qhub/tls/site.key
    - source: {{ files.certificate | json }}
    - key_source: {{ files.key | json }}
    - hosts: {{ [pillar.cluster.public_name] | json }}
    - group: traefik
    - require:
      - x509: Certificate of traefik is current
    - require_in:
      - file: Routes of traefik are in place
{% endif %}

Traefik is configured:
  file.managed:
    - name: /etc/traefik/traefik.yml
    - source: salt://traefik/files/traefik.yml.jinja
    - template: jinja
    - context:
        traefik: {{ traefik | json }}
        public_name: {{ pillar.cluster.public_name | json }}
    - makedirs: true
    - mode: '0644'

Program that checks routes is installed:
  file.managed:
    - name: /usr/local/sbin/qhub-check-routes
    - source: salt://traefik/files/qhub-check-routes
    - mode: '0755'

{# Who asks for a name or an address that is not the master's gets nothing, whatever routes there are. #}
{% set hosts = (master_names + master_addresses + ["localhost", "127.0.0.1"]) | unique
    | map("regex_replace", "^(.*)$", "Host(`\\1`)") | join(" || ") %}
{# Traefik writes X-Forwarded-* itself. What else services may take for its word, a client does not get through. #}
{% set other_headers = {"Forwarded": "", "X-Scheme": "", "X-Forwarded-Scheme": "", "X-Forwarded-Protocol": "", "X-Forwarded-Ssl": "",
                        "X-Original-Url": "", "X-Rewrite-Url": "", "Front-End-Https": ""} %}
{# Response headers that a browser applies to a whole origin. A person's own web server is not allowed to set them. #}
{% set origin_headers = {} %}
{% for header in ("Service-Worker-Allowed", "Clear-Site-Data", "Access-Control-Allow-Origin", "Access-Control-Allow-Credentials",
                  "Access-Control-Allow-Headers", "Access-Control-Allow-Methods", "Access-Control-Allow-Private-Network",
                  "Access-Control-Expose-Headers", "Access-Control-Max-Age") %}
{%   do origin_headers.update({header: ""}) %}
{% endfor %}
{{ routes("traefik", {
  "http": {
    "routers": {
      "dashboard": {"rule": "PathPrefix(`/api`) || PathPrefix(`/dashboard`)", "entryPoints": ["metrics"], "service": "api@internal"},
      "nobody": {"rule": "PathPrefix(`/`)", "priority": 1, "entryPoints": ["websecure"], "service": "nobody", "middlewares": ["no-such-page"]},
      "other-host": {"rule": "!(" ~ hosts ~ ")", "priority": 1000000, "entryPoints": ["web", "websecure"], "service": "nobody",
                     "middlewares": ["not-this-host"]},
    },
    "services": {"nobody": {"loadBalancer": {"servers": []}}},
    "middlewares": {
      "default-headers": {"headers": {
        "stsSeconds": traefik.hsts, "contentTypeNosniff": true, "customFrameOptionsValue": "SAMEORIGIN",
        "referrerPolicy": "same-origin", "customResponseHeaders": {"Server": "", "X-Powered-By": "", "X-JupyterHub-Version": ""},
        "customRequestHeaders": other_headers,
      }},
      "people-servers": {"headers": {"customResponseHeaders": origin_headers}},
      "auth-ratelimit": {"rateLimit": traefik.auth_rate},
      "no-such-page": {"ipAllowList": {"sourceRange": ["255.255.255.255"], "rejectStatusCode": 404}},
      "not-this-host": {"ipAllowList": {"sourceRange": ["255.255.255.255"], "rejectStatusCode": 421}},
    },
  },
  "tls": {
    "stores": {"default": {"defaultCertificate": {"certFile": "/etc/qhub/tls/" ~ edge ~ ".crt", "keyFile": "/etc/qhub/tls/" ~ edge ~ ".key"}}},
    "options": {"default": {
      "minVersion": "VersionTLS12",
      "cipherSuites": ["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
                       "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305"],
    }},
  },
}, require=[{"x509": "Certificate of traefik is current"}]) }}

# All of them are here: in a highstate (roles/master.sls) what no formula declares is removed.
Traefik has no other routes:
  file.directory:
    - name: /etc/traefik/dynamic
    - clean: false
    - mode: '0755'

# It looks at certificates when a file of routes changes.
Traefik takes its new certificate:
  file.touch:
    - name: /etc/traefik/dynamic/traefik.yml
    - onchanges:
      - x509: Key of traefik is here
      - x509: Certificate of traefik is current
      {% if source == "files" %}
      - certificate: Site's certificate is in place
      {% endif %}
    - require:
      - file: Routes of traefik are in place

Traefik's log is rotated:
  pkg.installed:
    - pkgs: {{ traefik.packages | json }}
    - install_recommends: false
  file.managed:
    - name: /etc/logrotate.d/qhub-traefik
    - contents: |
        # Written by Salt (formulas/traefik).
        /var/log/traefik/access.log {
            daily
            rotate {{ traefik.access_log_days }}
            compress
            delaycompress
            missingok
            notifempty
            su traefik traefik
            create 0600 traefik traefik
            postrotate
                systemctl kill --signal=USR1 traefik.service
            endscript
        }
    - mode: '0644'

Traefik has a unit:
  file.managed:
    - name: /etc/systemd/system/traefik.service
    - source: salt://traefik/files/traefik.service
    - mode: '0644'

Traefik is running:
  service.running:
    - name: traefik
    - enable: true
    - require:
      - user: Traefik's user exists
      - file: Traefik has no other routes
    - watch:
      - file: Traefik is of this version
      - file: Traefik is configured
      - file: Traefik has a unit

{{ only("Traefik's older versions are removed", "traefik", "Traefik is running") }}

{{ scrape("traefik", {"static_configs": [{"targets": ["127.0.0.1:8082"]}]}) }}
