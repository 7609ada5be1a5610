"""Every call that is ours to answer has its verb, and every verb its call."""

from __future__ import annotations

import inspect

from noderuntime.edge.router.routes import Route, methods
from noderuntime.edge.server.dispatch import verbs_of
from noderuntime.edge.server.image_service import ImageService
from noderuntime.edge.server.metrics_service import MetricsService
from noderuntime.edge.server.node_service import NodeService
from noderuntime.edge.server.runtime_service import RuntimeService

SERVICES = (RuntimeService, NodeService, MetricsService, ImageService)


def test_every_cri_call_but_events_has_a_verb() -> None:
    calls = {method.name for method in methods() if method.route is not Route.EVENTS}
    assert set(verbs_of(*SERVICES)) == calls


def test_every_public_method_of_the_services_is_a_call() -> None:
    named = {
        name
        for service in SERVICES
        for name, _ in inspect.getmembers(service, inspect.isfunction)
        if not name.startswith("_") and name != "events"
    }
    assert named == set(verbs_of(*SERVICES))


def test_verbs_have_the_message_types_of_their_call() -> None:
    for method in methods():
        for service in SERVICES:
            verb = getattr(service, method.name, None)
            if verb is not None:
                output = inspect.get_annotations(verb, eval_str=True, globals=verb.__globals__)
                assert output["request"] is method.request, method.name
                assert output["return"] is method.response, method.name
