"""The look at the port before the server starts."""

import socket

import msgspec
import pytest

from config import Settings
from processes import require_free_port


def test_a_port_is_refused_while_somebody_listens_on_it(settings: Settings) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        web = msgspec.structs.replace(settings.web, port=port)
        with pytest.raises(SystemExit) as refused:
            require_free_port(web)
    assert refused.value.code == f"web: 127.0.0.1:{port} is in use; set another one, for example PORT={port + 1}"
    require_free_port(web)


def test_a_host_that_is_not_this_machine_is_refused(settings: Settings) -> None:
    web = msgspec.structs.replace(settings.web, host="192.0.2.1")
    with pytest.raises(SystemExit, match=r"192\.0\.2\.1:8000 cannot be used: "):
        require_free_port(web)
