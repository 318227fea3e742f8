# Environments that the pillar lists: see _modules/conda_store_env.py for what that means.
include:
  - conda_store

Environments are as declared:
  conda_store_env.managed:
    - pillar: true
    - require:
      - service: conda-store's server is running
      - service: conda-store's worker is running
