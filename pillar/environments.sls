# Shared conda environments, by namespace/name: built on the master, there on every node, a kernel in JupyterLab and a
# choice for Dask. Those in the namespace global are for everybody. A change here is built at the next
# `salt-run state.orchestrate orch.apply`; what people use stays until the new build is complete.
environments:
  global/analysis:
    description: Numbers and tables
    dependencies: [python=3.13, ipykernel, numpy, pandas, pip]
  global/dask:
    description: The same, with Dask on the cluster
    dependencies: [python=3.13, ipykernel, numpy, pandas, pip, bokeh, dask, distributed, dask-gateway]
#   physics/simulation:
#     channels: [conda-forge]                   # default: those of the formula (conda_store.channels)
#     dependencies: [python=3.13, ipykernel, fipy, {pip: [some-package==1.2]}]
#     rebuild: "2027-01"                        # another text builds once more, with the newest packages
#   physics/exactly:
#     lockfile: salt://conda-lock.yml           # of conda-lock, in place of channels and dependencies
#   physics/older:
#     current_build: 12                         # this build of the environment; nothing is built
  # Of each environment: the current build and the newest others; an environment can say so itself.
  keep_builds: 3
  # Seconds that one build may take; after that it is cancelled.
  timeout: 3600
  # What is removed when it is no longer here: owned (what was made from here) or none; and not more at once than
  # purge_limit, unless forced.
  purge: owned
# purge_limit: {count: 50, share: 0.25}
# force: false
# # Rights of those at home in one namespace in another, and settings of conda-store. What a namespace or an environment
# # sets has to be set for all of conda-store too.
# namespaces:
#   physics:
#     roles: {chemistry: viewer}
#     settings: {conda_included_packages: [ipykernel, numpy]}
# settings: {conda_included_packages: [ipykernel]}
