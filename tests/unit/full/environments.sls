environments:
  global/analysis:
    description: Numbers and tables
    channels: [conda-forge, https://conda.example.org/own]
    dependencies: [python=3.13, ipykernel, "numpy >=2,<3", {pip: [some-package==1.2]}]
    variables: {CONDA_OVERRIDE_CUDA: "12.4"}
    rebuild: "2027-01"
    keep_builds: 2
    settings: {build_artifacts: [LOCKFILE, CONDA_PACK]}
  global/locked: {lockfile: salt://conda-lock.yml}
  physics/older: {current_build: 12}
  namespaces:
    physics:
      metadata: {contact: ada}
      roles: {chemistry: viewer}
      settings: {conda_included_packages: [ipykernel, numpy], conda_allowed_channels: [conda-forge]}
  settings:
    conda_included_packages: [ipykernel]
    conda_allowed_channels: []
    build_artifacts: [LOCKFILE]
    storage_threshold: 5368709120
    conda_max_solve_time: 600
    build_artifacts_kept_on_deletion: [LOCKFILE]
  keep_builds: 3
  timeout: 1800
  purge: owned
  purge_limit: {count: 10, share: 0.1}
  force: false
