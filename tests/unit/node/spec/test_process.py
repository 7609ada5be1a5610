from __future__ import annotations

import pytest

from noderuntime.core.errors import InvalidArgument
from noderuntime.cri.v1 import api_pb2
from noderuntime.images.base import ImageConfig
from noderuntime.node.spec.oci_process import arguments, directory, environment

IMAGE = ImageConfig(entrypoint=("e",), cmd=("c",), env=("A=image", "B=image", "junk", "=x"), working_dir="/w")


@pytest.mark.parametrize(
    ("command", "args", "argv"),
    [
        ([], [], ["e", "c"]),
        (["k"], [], ["k"]),
        ([], ["a"], ["e", "a"]),
        (["k"], ["a", "b"], ["k", "a", "b"]),
    ],
)
def test_arguments_combine_pod_and_image(command: list[str], args: list[str], argv: list[str]) -> None:
    assert arguments(api_pb2.ContainerConfig(command=command, args=args), IMAGE) == argv


@pytest.mark.parametrize(("args", "argv"), [([], ["c"]), (["a", "b"], ["a", "b"])])
def test_arguments_ignore_an_empty_entrypoint(args: list[str], argv: list[str]) -> None:
    image = ImageConfig(entrypoint=("",), cmd=("c",))
    assert arguments(api_pb2.ContainerConfig(args=args), image) == argv


@pytest.mark.parametrize("command", [[], [""], ["a\0b"]])
def test_arguments_require_a_command(command: list[str]) -> None:
    with pytest.raises(InvalidArgument):
        arguments(api_pb2.ContainerConfig(command=command), ImageConfig())


def test_environment_of_the_pod_takes_precedence() -> None:
    config = api_pb2.ContainerConfig(tty=True)
    config.envs.add(key="A", value=b"pod")
    config.envs.add(key="E", value=b"a=b\xff")
    env = environment(config, IMAGE, "h")
    assert env == [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "TERM=xterm",
        "HOSTNAME=h",
        "A=pod",
        "B=image",
        "E=a=b\N{REPLACEMENT CHARACTER}",
    ]


@pytest.mark.parametrize("key", ["", "A=B", "A\0"])
def test_environment_refuses_an_invalid_name(key: str) -> None:
    config = api_pb2.ContainerConfig()
    config.envs.add(key=key, value=b"x")
    with pytest.raises(InvalidArgument):
        environment(config, ImageConfig(), "h")


@pytest.mark.parametrize(
    ("requested", "image", "expected"), [("", "", "/"), ("", "/w", "/w"), ("/p", "/w", "/p"), ("r", "", "/r")]
)
def test_directory_of_the_pod_takes_precedence(requested: str, image: str, expected: str) -> None:
    config = api_pb2.ContainerConfig(working_dir=requested)
    assert directory(config, ImageConfig(working_dir=image)) == expected
