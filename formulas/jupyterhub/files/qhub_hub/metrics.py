"""The Hub's count of running servers, counted anew whenever it is asked for.

JupyterHub's own gauge adds one when a server is ready and takes one away when a server stops, also for a server that
was cancelled before it was ready.
"""

from jupyterhub.app import JupyterHub
from jupyterhub.metrics import RUNNING_SERVERS


def running_servers():
    """Return how many servers are ready."""
    users = JupyterHub.instance().users if JupyterHub.initialized() else None
    return users.count_active_users()["ready"] if users else 0


def count_running_servers():
    """Let the gauge ``jupyterhub_running_servers`` be :func:`running_servers`."""
    RUNNING_SERVERS.set_function(running_servers)
