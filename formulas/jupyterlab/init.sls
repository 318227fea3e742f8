# JupyterLab for all nodes, on the master, which holds the shared software directory.
{% from "jupyterlab/map.jinja" import jupyterlab %}
{% from "artifacts/macros.jinja" import environment %}

include:
  - artifacts

{{ environment("JupyterLab is here", "jupyterlab", jupyterlab.directory) }}

# What a notebook's job starts (formulas/jupyterhub).
Program that starts notebook servers is installed:
  file.managed:
    - name: {{ jupyterlab.directory }}/bin/qhub-notebook
    - source: salt://jupyterlab/files/qhub-notebook.jinja
    - template: jinja
    - context: {jupyterlab: {{ jupyterlab | json }}}
    - mode: '0755'
    - makedirs: true

# Beside a site's own files there: jupyter_server_config.json and its like, kernels in share/jupyter/kernels. JupyterLab
# does not ask the outside for news.
JupyterLab is configured:
  file.managed:
    - name: {{ jupyterlab.directory }}/etc/jupyter/labconfig/page_config.json
    - contents: '{"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": true}}'
    - mode: '0644'
    - makedirs: true
