"""Whether policies could ever permit somebody an action: what a page need not offer.

What is asked is not known before a form is filled in, and a policy may look at any of it. So nothing is left out that
some answer could permit: conditions are taken to hold where they permit, and not to where they forbid. Nothing is
decided by this.
"""

from __future__ import annotations

import json
from functools import lru_cache

import cedarpy

from exequatur.errors import PolicyError
from exequatur.gate.attempt import NO_ARGUMENTS
from exequatur.identity.principal import Principal
from exequatur.policy.action import WORKFLOW_TYPE
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.engine import decide

_ANY = {"op": "All"}


def may_ever(bundle: PolicyBundle, principal: Principal, action: str) -> bool:
    """Whether the policies could permit it, whatever it is about.

    Args:
        bundle: The policies in force.
        principal: Who would do it.
        action: One of the gate's own Cedar actions.
    """
    if bundle.fault:
        return False
    resource = {"type": WORKFLOW_TYPE, "id": ""}
    try:
        scopes = _scopes(bundle, action)
    except (PolicyError, ValueError, KeyError):  # a template, or whatever Cedar cannot show: better a form too many
        return True
    return decide(scopes, principal.entity(), {"type": "Action", "id": action}, resource, NO_ARGUMENTS, {}).allowed


@lru_cache(maxsize=8)
def _scopes(bundle: PolicyBundle, action: str) -> PolicyBundle:
    """The policies about an action, of which only who they are about is left."""
    kept = {}
    for policy_id in bundle.applicable(action):
        [policy] = json.loads(cedarpy.policies_to_json_str(bundle.located[policy_id].text))["staticPolicies"].values()
        permits = policy["effect"] == "permit"
        if permits or (not policy["conditions"] and policy["resource"] == _ANY):
            left = {"action": _ANY, "resource": _ANY, "conditions": [], "annotations": {}}
            kept[policy_id] = policy | left
    document = {"staticPolicies": kept, "templates": {}, "templateLinks": []}
    text = cedarpy.policies_from_json_str(json.dumps(document))
    return PolicyBundle.from_parts(text, entities=list(bundle.source.entity_documents))
