"""How requests are split between revisions on a cluster: by the number of pods, a Gateway, or ingress-nginx.

Each has a module of pure functions, which translate traffic to objects and objects to traffic. The router applies them
and waits, in the same way for all.
"""

from __future__ import annotations

from blocks.targets.kubernetes.routing.base import Routing
from blocks.targets.kubernetes.routing.gateway_api import ByGateway
from blocks.targets.kubernetes.routing.ingress_nginx import ByIngress
from blocks.targets.kubernetes.routing.replica_weighted import ByPods
from blocks.targets.kubernetes.routing.router import Router

__all__ = ["ByGateway", "ByIngress", "ByPods", "Router", "Routing"]
