"""A server on loopback that speaks OpenAI's interface well, or as badly as a test asks."""

import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODEL = "served-model"


class Server(ThreadingHTTPServer):
    """Answers each completion by `behave(number, body)`, which names a method of `Handler` or gives (status, body).

    Attributes
    ----------
    bodies, headers : list
        What came, in order.
    most_running : int
        Completions answered at the same time, at most.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, behave=lambda number, body: "well", port=0):
        super().__init__(("127.0.0.1", port), Handler)
        self.behave, self.models, self.owner = behave, [MODEL], "tests"
        self.key, self.seconds = None, 0.0
        self.bodies, self.headers, self.paths = [], [], []
        self.running = self.most_running = 0
        self.lock = threading.Lock()
        self.ended = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request, client_address):
        """Clients that go away are expected here."""

    def stop(self):
        self.ended.set()
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        if self.refuses_key():
            return
        if self.path != "/v1/models":
            return self.reply(404, {"error": {"message": "no such path"}})
        self.reply(200, {"data": [{"id": m, "owned_by": self.server.owner} for m in self.server.models]})

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with server.lock:
            number = len(server.bodies)
            server.bodies.append(body)
            server.headers.append(dict(self.headers))
            server.paths.append(self.path)
            server.running += 1
            server.most_running = max(server.most_running, server.running)
        try:
            if not self.refuses_key():
                time.sleep(server.seconds)
                behaviour = server.behave(number, body)
                if isinstance(behaviour, str):
                    getattr(self, behaviour)(body)
                else:
                    self.reply(*behaviour)
        finally:
            with server.lock:
                server.running -= 1

    def refuses_key(self):
        key = self.server.key
        if key is None or self.headers.get("authorization") == f"Bearer {key}":
            return False
        self.reply(
            401, {"error": {"message": f"wrong key {self.headers.get('authorization')}", "code": "invalid_api_key"}}
        )
        return True

    def reply(self, status, body, headers=None):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"content-length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def well(self, body):
        self.reply(200, completion(body))

    def hang(self, body):
        self.server.ended.wait(60)

    def drip(self, body):
        """A byte now and then: never a silence that a read time-out would notice."""
        data = json.dumps(completion(body)).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        for i in range(len(data)):
            self.wfile.write(data[i : i + 1])
            self.wfile.flush()
            if self.server.ended.wait(0.05):
                return

    def truncated(self, body):
        data = json.dumps(completion(body)).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2])
        self.close_connection = True

    def closed(self, body):
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def no_json(self, body):
        self.reply(200, b"<html>It works!</html>")

    def wrong_json(self, body):
        self.reply(200, {"choices": []})


def prompt_of(body):
    return body["prompt"] if "prompt" in body else body["messages"][-1]["content"]


def completion(body, text=None, finish_reason="stop"):
    """A good answer: the prompt, shouted; every second prompt token was cached."""
    prompt = prompt_of(body)
    text = prompt.upper() if text is None else text
    content = {"message": {"role": "assistant", "content": text}} if "messages" in body else {"text": text}
    usage = {
        "prompt_tokens": len(prompt),
        "completion_tokens": len(text),
        "prompt_tokens_details": {"cached_tokens": len(prompt) // 2},
    }
    return {"choices": [{**content, "finish_reason": finish_reason}], "usage": usage}
