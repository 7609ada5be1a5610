import asyncio
import subprocess
import sys
from concurrent import futures

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from noderuntime.core.errors import Unavailable
from noderuntime.core.tasks import finish
from noderuntime.lifecycle.metrics.base import Metrics
from noderuntime.lifecycle.metrics.tracing import Traced

RUN = "/runtime.v1.RuntimeService/RunPodSandbox"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """An OTLP collector that remembers spans by name."""

    def __init__(self):
        self.spans = {}

    def Export(self, request, context):  # noqa: N802 - the name in the schema
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.spans |= {span.name: span for span in scope.spans}
        return trace_service_pb2.ExportTraceServiceResponse()


@pytest.fixture
def collector():
    collector = Collector()
    server = grpc.server(futures.ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield collector
    server.stop(None).wait()


async def test_phases_are_spans_below_the_kubelets_call(collector):
    traced = Traced(Metrics(), collector.endpoint)

    async def verb():
        with traced.phase("network", "gvisor"):
            await asyncio.sleep(0)

    with traced.call(RUN, (("traceparent", PARENT), ("x-bin", b"\0"))):
        await finish(verb(), name="RunPodSandbox")
    await traced.close()
    call, phase = collector.spans["runtime.v1.RuntimeService/RunPodSandbox"], collector.spans["network"]
    assert call.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert call.parent_span_id.hex() == "b7ad6b7169203331"
    assert phase.parent_span_id == call.span_id
    assert {one.key: one.value.string_value for one in phase.attributes} == {"noderuntime.handler": "gvisor"}


async def test_failed_call_is_a_span_with_an_error(collector):
    traced = Traced(Metrics(), collector.endpoint)
    with pytest.raises(Unavailable), traced.call(RUN, None):
        raise Unavailable("the network is not configured")
    await traced.close()
    status = collector.spans["runtime.v1.RuntimeService/RunPodSandbox"].status
    assert (status.code, "not configured" in status.message) == (2, True)


async def test_unavailable_collector_delays_no_call():
    traced = Traced(Metrics(), "http://127.0.0.1:1")
    with traced.call(RUN, None):
        pass
    async with asyncio.timeout(10):
        await traced.close()


def test_daemon_without_tracing_imports_none_of_it():
    program = "import sys, noderuntime.app; sys.exit('opentelemetry' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
