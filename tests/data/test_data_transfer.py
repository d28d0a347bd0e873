"""Servers that send too much, too slowly, or send on for ever."""

import socket
import sys
import threading
import time
from contextlib import suppress

import pytest
from data.described import with_files

from threefactor.data import fetch
from threefactor.errors import DataError


@pytest.fixture
def serve():
    """A function that starts a server which does as a function of the connection does."""
    servers = []

    def start(act):
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def run():
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection, suppress(OSError):
                        connection.recv(65536)
                        act(connection, server.getsockname()[1])

        threading.Thread(target=run, daemon=True).start()
        return f"http://127.0.0.1:{server.getsockname()[1]}/"

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def hasty(monkeypatch):
    """Less patience than users have."""
    monkeypatch.setattr(sys.modules["threefactor.data.fetch"], "PERIOD", 0.6)


def failure(tmp_path, url):
    """Fetch; return the reason, once it is sure that nothing is left."""
    start = time.monotonic()
    with pytest.raises(DataError, match="no mirror delivered train-images") as caught:
        fetch("mnist", tmp_path, mirrors=[url])
    assert time.monotonic() - start < 15
    assert list((tmp_path / "mnist").iterdir()) == []
    return str(caught.value)


OK = b"HTTP/1.1 200 OK\r\n"
SENT = 200 << 20


def test_an_answer_without_end_is_broken_off(tmp_path, tiny, serve):
    taken = []

    def act(connection, port):
        connection.sendall(OK + b"\r\n")
        for count in range(SENT >> 20):
            connection.sendall(bytes(1 << 20))
            taken.append(count)

    assert "the answer has more than" in failure(tmp_path, serve(act))
    assert tiny.files.published[0].limit <= 2 << 30 and len(taken) < 200


@pytest.fixture(autouse=True)
def small(tiny, monkeypatch):
    """Let the tiny files have ten megabytes at most."""
    from dataclasses import replace

    from threefactor.data import DATASETS

    files = tuple(replace(file, limit=10 << 20) for file in tiny.files.published)
    monkeypatch.setitem(DATASETS, "mnist", with_files(tiny, *files))


def test_an_announced_length_beyond_the_limit_is_not_read(tmp_path, serve):
    def act(connection, port):
        connection.sendall(OK + b"Content-Length: 99999999999\r\n\r\n")
        time.sleep(2)

    assert "the answer has 99,999,999,999 bytes; the file has 10,485,760" in failure(
        tmp_path, serve(act)
    )


@pytest.mark.parametrize("length", [b"-5", b"nonsense", b"9" * 400, b"3"])
def test_a_length_that_is_a_lie_is_no_success(tmp_path, serve, length):
    def act(connection, port):
        connection.sendall(OK + b"Content-Length: " + length + b"\r\n\r\n" + bytes(20))

    failure(tmp_path, serve(act))


@pytest.mark.parametrize(
    ("first", "part"),
    [
        (b"", b"H"),
        (OK + b"X: ", b"a"),
        (OK + b"\r\n", b"a"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n", b"a: b\r\n"),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 100000\r\n\r\n", b"a"),
    ],
    ids=["status", "header", "body", "chunk", "trailer", "redirect"],
)
def test_a_server_that_trickles_is_not_waited_for(tmp_path, serve, hasty, first, part):
    def act(connection, port):
        connection.sendall(first)
        for _ in range(100):
            connection.sendall(part)
            time.sleep(0.1)

    reason = failure(tmp_path, serve(act))
    assert "bytes came in 0.6 seconds" in reason or "redirects" in reason


def test_redirects_in_a_circle_end(tmp_path, serve):
    asked = []

    def act(connection, port):
        asked.append(1)
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /again\r\nConnection: close\r\n\r\n")

    assert "more than 10 redirects" in failure(tmp_path, serve(act))
    assert len(asked) == 10


@pytest.mark.parametrize("target", [b"file:///etc/passwd", b"ftp://127.0.0.1/x", b"nowhere:x"])
def test_redirects_lead_to_web_addresses_alone(tmp_path, serve, target):
    def act(connection, port):
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: " + target + b"\r\n\r\n")

    assert "No connection adapters" in failure(tmp_path, serve(act))


def test_a_redirect_to_the_file_is_followed(tmp_path, serve, mirror, packed):
    def act(connection, port):
        connection.recv(0)
        target = mirror("good") + "train-images-idx3-ubyte.gz"
        connection.sendall(f"HTTP/1.1 301 Moved\r\nLocation: {target}\r\n\r\n".encode())

    folder = fetch("mnist", tmp_path, mirrors=[mirror("good")])
    (folder / "train-images-idx3-ubyte.gz").unlink()
    assert fetch("mnist", tmp_path, mirrors=[serve(act)]) == folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == packed
