"""Every call that is ours to answer has its verb, and every verb its call."""

from __future__ import annotations

import inspect

from noderuntime.router.routes import Route, methods
from noderuntime.server.dispatch import verbs_of
from noderuntime.server.node_service import NodeService
from noderuntime.server.runtime_service import RuntimeService

NOT_OFFERED_YET = {"CheckpointContainer"}


def test_what_is_routed_to_us_is_answered() -> None:
    routed = {m.name for m in methods() if m.route not in (Route.UPSTREAM, Route.EVENTS)}
    assert set(verbs_of(RuntimeService, NodeService)) == routed - NOT_OFFERED_YET


def test_every_public_method_of_the_services_is_a_call() -> None:
    named = {
        name
        for service in (RuntimeService, NodeService)
        for name, _ in inspect.getmembers(service, inspect.isfunction)
        if not name.startswith("_") and name != "events"
    }
    assert named == set(verbs_of(RuntimeService, NodeService))


def test_verbs_take_and_give_the_messages_of_their_call() -> None:
    for method in methods():
        for service in (RuntimeService, NodeService):
            verb = getattr(service, method.name, None)
            if verb is not None:
                said = inspect.get_annotations(verb, eval_str=True, globals=verb.__globals__)
                assert said["request"] is method.request, method.name
                assert said["return"] is method.response, method.name
