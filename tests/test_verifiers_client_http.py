"""The client's own HTTP, against a server that says exactly the given bytes."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from verifiers.client_http import HttpAnswer, HttpEndpoint, HttpError

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


class Scripted:
    """Each request gets the next script: bytes to send, or None to close the connection."""

    def __init__(self, *scripts):
        self.scripts = list(scripts)
        self.requests = []
        self.num_connections = 0
        self.ended = asyncio.Event()

    async def connection(self, reader, writer):
        self.num_connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.requests.append((head, await reader.readexactly(length)))
                for part in self.scripts.pop(0):
                    if part is None:
                        return
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(0)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            return
        finally:
            self.ended.set()
            writer.close()


@asynccontextmanager
async def served(*scripts, path=""):
    server = Scripted(*scripts)
    listener = await asyncio.start_server(server.connection, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    endpoint = HttpEndpoint(f"http://127.0.0.1:{port}{path}/score", {"X-Name": "value"})
    try:
        yield server, endpoint
    finally:
        endpoint.close()
        listener.close()


def posted(*scripts, times=1):
    """The answers to that many posts, and the server."""

    async def run():
        async with served(*scripts) as (server, endpoint):
            return [await endpoint.post(b"body") for _ in range(times)], server

    return asyncio.run(run())


def test_the_request_is_what_was_asked():
    async def run():
        async with served([GOOD], path="/rewards") as (server, endpoint):
            assert await endpoint.post(b"\x00\r\n\r\nbody") == HttpAnswer(200, b"hello")
            return server.requests

    ((head, body),) = asyncio.run(run())
    assert body == b"\x00\r\n\r\nbody"
    first, *headers = head.decode().strip().split("\r\n")
    assert first == "POST /rewards/score HTTP/1.1"
    assert headers[0].startswith("Host: 127.0.0.1:")
    assert headers[1:] == ["X-Name: value", "Content-Length: 9"]


@pytest.mark.parametrize(
    "script",
    [
        [GOOD],
        [GOOD[i : i + 1] for i in range(len(GOOD))],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"],
        [b"HTTP/1.1 100 Continue\r\n\r\n", GOOD],
    ],
)
def test_an_answer_is_the_same_however_it_is_sent(script):
    answers, server = posted(script, script, times=2)
    assert answers == [HttpAnswer(200, b"hello")] * 2
    assert server.num_connections == 1


def test_a_connection_that_the_server_ends_is_not_used_again():
    last = GOOD.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    answers, server = posted([last], [GOOD], times=2)
    assert answers == [HttpAnswer(200, b"hello")] * 2
    assert server.num_connections == 2

    async def closed_while_idle():
        async with served([GOOD, None], [GOOD]) as (server, endpoint):
            await endpoint.post(b"")
            await server.ended.wait()
            await asyncio.sleep(0.01)
            return await endpoint.post(b""), server.num_connections

    assert asyncio.run(closed_while_idle()) == (HttpAnswer(200, b"hello"), 2)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ([None], "the connection was"),
        ([GOOD[:-1], None], "the connection was"),
        ([b"HTTP/1.1 200 OK\r\nContent-Le", None], "the connection was"),
        ([b"SSH-2.0-OpenSSH_9.2\r\n"], "no HTTP"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n"], "no HTTP"),
    ],
)
def test_half_an_answer_is_none(script, said):
    with pytest.raises(HttpError, match=said):
        posted(script)


def test_what_follows_an_answer_is_not_taken_for_the_next():
    other = GOOD.replace(b"hello", b"other")

    async def run():
        async with served([GOOD, other], [GOOD]) as (server, endpoint):
            first = await endpoint.post(b"")
            await asyncio.sleep(0.02)
            return first.body, (await endpoint.post(b"")).body, server.num_connections

    assert asyncio.run(run()) == (b"hello", b"hello", 2)


def test_who_no_longer_waits_ends_the_connection():
    async def run():
        async with served([], [GOOD]) as (server, endpoint):
            asking = asyncio.create_task(endpoint.post(b""))
            while not server.requests:
                await asyncio.sleep(0.001)
            asking.cancel()
            await asyncio.wait_for(server.ended.wait(), 5)
            return await endpoint.post(b""), server.num_connections

    assert asyncio.run(run()) == (HttpAnswer(200, b"hello"), 2)


def test_nobody_at_the_address_is_an_error():
    async def run():
        async with served() as (_, endpoint):
            pass
        await endpoint.post(b"")

    with pytest.raises(HttpError, match="no connection"):
        asyncio.run(run())
