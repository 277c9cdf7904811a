"""How requests are split between revisions on a cluster: by the number of pods, a Gateway, or ingress-nginx.

Each way is one file, and pure: wanted traffic becomes objects, and objects are read as traffic. The router sends them
and waits, the same for all ways.
"""

from __future__ import annotations

from blocks.targets.kubernetes.routing.base import Routing
from blocks.targets.kubernetes.routing.gateway_api import ByGateway
from blocks.targets.kubernetes.routing.ingress_nginx import ByIngress
from blocks.targets.kubernetes.routing.replica_weighted import ByPods
from blocks.targets.kubernetes.routing.router import Router

__all__ = ["ByGateway", "ByIngress", "ByPods", "Router", "Routing"]
