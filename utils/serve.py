"""Answer over HTTP where photos were taken, and show it on a page.

python3 -m utils.serve --gallery DIR [--resume best.pth] [--port 8000]
curl --data-binary @photo.jpg http://127.0.0.1:8000/localize
"""

from utils.options.parsers import serve_parser

if __name__ == "__main__":
    serve_parser().parse_args()  # before torch is imported: --help and a mistyped flag are answered at once

import socket
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from datasets.command_line import one_line, read_flags
from utils.retrieval import Localizer
from utils.retrieval.engines.client import EngineError
from utils.retrieval.settings import RetrievalSettings
from utils.system.command import run_command
from utils.system.logs import LOGGER, start_logging

if TYPE_CHECKING:
    from starlette.applications import Starlette

PAGE = Path(__file__).with_name("serve.html")


LOOPBACK = ["127.0.0.1", "localhost", "[::1]", "::1"]


def application(localizer: Localizer, limit: int, hosts: Sequence[str] = tuple(LOOPBACK)) -> "Starlette":
    """The service of a gallery.

    Parameters
    ----------
    limit : bytes of a photo, which is the body of a request.
    hosts : names under which the service answers, `*` for any. Other names are refused, so that a web page cannot ask it.
    """
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import Request
    from starlette.responses import FileResponse, JSONResponse, Response
    from starlette.routing import Route

    def refuse(status: int, line: str) -> JSONResponse:
        return JSONResponse({"error": line}, status)

    async def localize(request: Request) -> Response:
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > limit:
                return refuse(413, f"photo: larger than {limit / 2**20:g} MiB; send a smaller one or raise --limit_mb")
        if not body:
            return refuse(400, "photo: the request is empty; send an image file as its body")
        status, answer = await run_in_threadpool(look_up, localizer, bytes(body))
        return JSONResponse(answer, status)

    async def health(request: Request) -> Response:
        return JSONResponse({"images": len(localizer)})

    async def page(request: Request) -> Response:
        return FileResponse(PAGE)

    async def image(request: Request) -> Response:
        paths, number = localizer.images.paths, request.path_params["number"]
        if number >= len(paths) or not Path(paths[number]).is_file():
            return refuse(404, f"gallery: there is no image {number}")
        return FileResponse(paths[number])

    return Starlette(
        routes=[
            Route("/", page),
            Route("/health", health),
            Route("/gallery/{number:int}", image),
            Route("/localize", localize, methods=["POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))],
    )


def look_up(localizer: Localizer, body: bytes) -> tuple[int, dict]:
    """Status and answer for the bytes of a photo."""
    with tempfile.NamedTemporaryFile(suffix=".image") as file:
        file.write(body)
        file.flush()
        try:
            found = asdict(localizer.locate(file.name))
        except EngineError as fault:
            LOGGER.error("%s", one_line(fault))
            return 503, {"error": "the gallery cannot be searched at the moment; try again"}
        except (ValueError, OSError) as fault:
            return 400, {"error": one_line(fault).replace(file.name, "photo")}
    numbers = numbers_of(localizer.images.paths)
    for match in found["matches"]:
        match["image"] = f"/gallery/{numbers[match['path']]}" if match["path"] in numbers else None
    return 200, found | {"photo": ""}


@lru_cache(maxsize=1)
def numbers_of(paths: tuple[str, ...]) -> dict[str, int]:
    """Where each image of a gallery stands in it; made anew only when the gallery has changed."""
    return {path: number for number, path in enumerate(paths)}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    args = serve_parser().parse_args(argv)

    def command() -> None:
        start_logging()
        absent = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
        if absent:
            raise ValueError(f"utils.serve needs {' and '.join(absent)}: pip install starlette uvicorn")
        import uvicorn

        try:
            listening = socket.create_server(
                (args.host, args.port)
            )  # before the gallery is embedded, which may take long
        except OSError as error:
            raise OSError(f"--host {args.host}, --port {args.port}: {error.strerror}; give another port") from error
        with listening:
            # a kept connection inherits it; without it, head and body of an answer are 40 ms apart
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            hosts = LOOPBACK if args.host in LOOPBACK else ["*"]
            retrieval = read_flags(RetrievalSettings, args)
            localizer = Localizer(
                args.resume, args.gallery, args.positions, precision=args.precision, retrieval=retrieval
            )
            served = application(localizer, int(args.limit_mb * 2**20), hosts)
            LOGGER.info("open http://%s:%d", *listening.getsockname()[:2])
            uvicorn.Server(uvicorn.Config(served, log_level="warning")).run(sockets=[listening])

    return run_command("utils.serve", command)


if __name__ == "__main__":
    sys.exit(main())
