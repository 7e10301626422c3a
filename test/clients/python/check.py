"""Asks for the health of gRPC servers with grpcio.

Each line of standard input is a question, each line of standard output its answer, both as in clients/programs_test.go.
"""

import json
import sys

import grpc

CHECK = "/grpc.health.v1.Health/Check"


def request(service):
    """A HealthCheckRequest: the name is field 1, and shorter than 128 bytes here, so that its length is one byte."""
    name = service.encode()
    return bytes([0x0A, len(name)]) + name if name else b""


def status(response):
    """The status of a HealthCheckResponse, field 1, smaller than 128."""
    return response[1] if response else 0


def read(path):
    if not path:
        return None
    with open(path, "rb") as file:
        return file.read()


def ask(question):
    options = [("grpc.use_local_subchannel_pool", 1)]  # else channels to the same target share their connections
    if question["ca"]:
        credentials = grpc.ssl_channel_credentials(read(question["ca"]), read(question["key"]), read(question["cert"]))
        channel = grpc.secure_channel(question["target"], credentials, options)
    else:
        channel = grpc.insecure_channel(question["target"], options)
    with channel:
        check = channel.unary_unary(CHECK, request_serializer=request, response_deserializer=status)
        metadata = [("authorization", "Bearer " + question["token"])] if question["token"] else None
        answer = {"code": 0, "status": 0, "message": "", "metadata": {}}
        try:
            answer["status"], call = check.with_call(question["service"], timeout=question["seconds"], metadata=metadata)
        except grpc.RpcError as error:
            call = error
            answer["code"], answer["message"] = error.code().value[0], error.details()
        for name, value in [*(call.initial_metadata() or ()), *(call.trailing_metadata() or ())]:
            answer["metadata"][name] = value if isinstance(value, str) else repr(value)
        return answer


for line in sys.stdin:
    print(json.dumps(ask(json.loads(line))), flush=True)
