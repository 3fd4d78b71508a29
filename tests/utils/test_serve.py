"""A gallery asked over real HTTP on this machine."""

import http.client
import json
import shutil
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from models import build_model
from tests.tiny import write_pass
from utils import serve
from utils.retrieval import Localizer
from utils.retrieval.embedding import EmbeddingOptions
from utils.retrieval.engines.client import EngineError
from utils.runs.checkpoints import save_checkpoint

uvicorn = pytest.importorskip("uvicorn", reason="the extras starlette and uvicorn are not installed")
pytest.importorskip("starlette", reason="the extras starlette and uvicorn are not installed")

LIMIT = 100_000


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A checkpoint and a gallery of six places."""
    folder = tmp_path_factory.mktemp("served")
    torch.manual_seed(1)
    model = build_model("resnet18")
    model.image_size = 136
    save_checkpoint(folder / "best.pth", model, {})
    write_pass(folder / "gallery", 6, 1)
    return folder


@pytest.fixture(scope="module")
def localizer(files) -> Localizer:
    return Localizer(files / "best.pth", files / "gallery", options=EmbeddingOptions(batch_size=4, num_workers=0))


@pytest.fixture(scope="module")
def port(localizer):
    """Where the service listens while the tests of this module run."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(serve.application(localizer, LIMIT), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join(30)


def ask(port: int, method: str, path: str, body: bytes | None = None, **headers) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def photos(files: Path) -> list[Path]:
    return sorted((files / "gallery").iterdir())


def test_an_answer_is_the_localizers(port, files, localizer):
    for photo in photos(files)[:2]:
        status, content = ask(port, "POST", "/localize", photo.read_bytes())
        found, expected = json.loads(content), json.loads(localizer.locate(photo).to_json())
        assert status == 200 and found.keys() == expected.keys()
        assert [m["path"] for m in found["matches"]] == [m["path"] for m in expected["matches"]]
        assert found["matches"][0]["east"] == expected["matches"][0]["east"]
        status, picture = ask(port, "GET", found["matches"][0]["image"])
        assert status == 200 and picture == photo.read_bytes()


def test_bad_requests_get_one_line(port):
    for body, status, text in (
        (b"no image", 400, "photo"),
        (b"", 400, "the request is empty"),
        (b"x" * (LIMIT + 1), 413, "larger than"),
    ):
        found, content = ask(port, "POST", "/localize", body)
        line = json.loads(content)["error"]
        assert found == status and text in line and "\n" not in line and "/tmp" not in line
    assert ask(port, "GET", "/gallery/99")[0] == 404
    assert ask(port, "GET", "/health", Host="elsewhere.example")[0] == 400
    assert json.loads(ask(port, "GET", "/health")[1]) == {"images": 6}


def test_an_engine_that_is_away_is_not_the_photos_fault(localizer, files, monkeypatch):
    def away(*_):
        raise EngineError("--engine http://inside:19530: unreachable")

    monkeypatch.setattr(localizer, "locate", away)
    status, answer = serve.look_up(localizer, photos(files)[0].read_bytes())
    assert status == 503 and "inside" not in answer["error"]


def test_200_requests_of_8_clients_are_all_answered(port, files):
    bodies = [photo.read_bytes() for photo in photos(files)]
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda i: ask(port, "POST", "/localize", bodies[i % 6]), range(200)))
    for i, (status, content) in enumerate(answers):
        assert status == 200 and json.loads(content)["matches"][0]["path"] == str(photos(files)[i % 6])


def test_a_port_in_use_is_one_line(port, files, capsys):
    assert serve.main(["--gallery", str(files / "gallery"), "--port", str(port)]) == 2
    assert f"--port {port}: " in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_the_page_shows_an_answer(port, files, tmp_path):
    """A frame on a page of the same origin asks for a photo of the gallery, as a person would by dropping it."""
    page = ask(port, "GET", "/")[1].decode()
    script = "<script>fetch('/gallery/2').then(r => r.blob()).then(ask)</script></html>"
    with ServedPage(port, page.replace("</html>", script)) as address:
        shown = subprocess.run(
            ["chromium", "--headless", "--no-sandbox", "--virtual-time-budget=20000", "--dump-dom", address],
            capture_output=True,
            text=True,
            timeout=120,
        ).stdout
    assert shown.count("<li>") == 5 and "no probability is known" in shown and "<circle" in shown


class ServedPage:
    """A page that passes what it does not have on to the service, so that both have one origin."""

    def __init__(self, port: int, page: str) -> None:
        from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(*((200, page.encode()) if self.path == "/" else ask(port, "GET", self.path)))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.answer(*ask(port, "POST", self.path, body))

            def answer(self, status: int, content: bytes) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> str:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}/"

    def __exit__(self, *_) -> None:
        self.server.shutdown()
        self.server.server_close()
