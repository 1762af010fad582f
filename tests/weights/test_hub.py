# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Weights at addresses: servers of this machine, with what servers do wrong."""

import base64
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from astropy.config import set_temp_cache
from conftest import TINY
from embedding.catalogues import rows_of_pairs, write_catalog

from astro_disentangle import (
    Disentangler,
    WeightsError,
    embed_catalog,
    simulate_pairs,
)
from astro_disentangle.weights.hub import local_file


@pytest.fixture(scope="module")
def tiny():
    settings = {"n_steps": 1, "batch_size": 8, "network": TINY, "progress": False}
    return Disentangler(**settings).fit(simulate_pairs(8, random_state=1))


@pytest.fixture(scope="module")
def weights(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    tiny.save(path)
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path):
    (tmp_path / "cache").mkdir()
    with set_temp_cache(tmp_path / "cache"):
        yield tmp_path / "cache"


@contextmanager
def _serving(handler):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


# --- URLs -----------------------------------------------------------------------------


@pytest.fixture
def site(weights):
    """A server of the file, and how often each path was asked for."""
    content, asked = weights.read_bytes(), []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            bodies = {
                "/mine.safetensors": content,
                "/page.safetensors": b"<html>Please log in</html>" * 40,
                "/damaged.safetensors": content[:-9] + b"\x01" + content[-8:],
                "/short.safetensors": content[:5000],
            }
            if self.path == "/moved.safetensors":
                self.send_response(302)
                self.send_header("Location", "/mine.safetensors")
                self.end_headers()
                return
            if self.path not in bodies:
                self.send_error(404)
                return
            self.send_response(200)
            size = len(content if "short" in self.path else bodies[self.path])
            self.send_header("Content-Length", str(size))
            self.end_headers()
            self.wfile.write(bodies[self.path])

        def log_message(self, *_):
            pass

    with _serving(Handler) as address:
        yield address, asked


def test_a_url_is_fetched_once(site, weights):
    address, asked = site
    told = f"{address}/mine.safetensors#sha256={_digest(weights).upper()}"
    for place in (f"{address}/mine.safetensors", told, told):
        model = Disentangler.load(place)
        assert model.sha256_ == Disentangler.load(weights).sha256_
    assert asked == ["/mine.safetensors"]
    moved = Disentangler.load(f"{address}/moved.safetensors")
    assert moved.sha256_ == model.sha256_


def test_another_file_than_the_one_told_is_refused(site, weights):
    address, asked = site
    wrong = "0" * 64
    with pytest.raises(WeightsError, match=rf"SHA-256 {wrong}; got {_digest(weights)}"):
        Disentangler.load(f"{address}/mine.safetensors#sha256={wrong}")
    # It does not stay in the cache.
    Disentangler.load(f"{address}/mine.safetensors#sha256={_digest(weights)}")
    assert asked == 2 * ["/mine.safetensors"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("page.safetensors", "what is at .*page.* is not a weights file"),
        ("damaged.safetensors", "what is at .*damaged.* SHA-256"),
        ("short.safetensors", "cannot fetch .*short"),
        ("nothing.safetensors", r"cannot fetch .*nothing.*\n?.*Not Found"),
    ],
)
def test_what_servers_do_wrong(name, text, site):
    address, asked = site
    for _ in range(2):
        with pytest.raises(WeightsError, match=text):
            Disentangler.load(f"{address}/{name}")
    # Nothing that cannot be used stays.
    assert len(asked) >= 2


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("http://example.org/a.safetensors", "must have their digest"),
        ("https://example.org/a.safetensors#md5=12", "must be 'sha256='"),
        ("https://example.org/a#sha256=12", "64 hexadecimal digits"),
        ("http://127.0.0.1:9/a.safetensors", "cannot fetch"),
        ("hf://nobody", "must be 'hf://OWNER/NAME'"),
        ("hf://a/b/../../c", "must be 'hf://OWNER/NAME'"),
    ],
)
def test_addresses_that_are_none(address, text):
    pytest.importorskip("huggingface_hub")
    with pytest.raises(WeightsError, match=text):
        Disentangler.load(address)


def test_weights_are_not_written_to_a_url(tiny):
    with pytest.raises(WeightsError, match="written to a file, a folder or 'hf://"):
        tiny.save("https://example.org/mine.safetensors")


def test_a_catalogue_is_embedded_with_weights_of_a_url(site, weights, tmp_path):
    lsdb = pytest.importorskip("lsdb")
    rows = rows_of_pairs(simulate_pairs(4, random_state=2), "hsc")
    stored = write_catalog(rows, tmp_path / "galaxies")
    address, _ = site
    told = f"{address}/mine.safetensors#sha256={_digest(weights)}"
    done = embed_catalog(told, stored, tmp_path / "latents")
    assert (done.n_rows, done.broken) == (4, {})
    found = lsdb.open_catalog(tmp_path / "latents").compute(progress_bar=False)
    expected = Disentangler.load(weights).transform(rows)
    order = [list(found["object_id"]).index(name) for name in expected["object_id"]]
    latents = found["physics"].array.to_stack()[order]
    np.testing.assert_allclose(latents, expected["physics"], atol=1e-5)
    # It is not left behind.
    assert not list((tmp_path / "latents").rglob("*.safetensors"))


# --- folders --------------------------------------------------------------------------


def test_a_folder_holds_weights_card_and_digest(tiny, tmp_path):
    folder = tmp_path / "mine"
    digest = tiny.save(f"{folder}/")
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md",
        "SHA256SUMS",
        "model.safetensors",
    ]
    assert Disentangler.load(folder).sha256_ == digest
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: astro_disentangle\n")
    for words in ("hsc (g, r, i, z, y) and legacy (g, r, i, z)", "| 1 |", "default"):
        assert words in card
    assert _digest(folder / "model.safetensors") in card
    told, name = (folder / "SHA256SUMS").read_text().split()
    assert (told, name) == (_digest(folder / name), "model.safetensors")
    # Once it is there, its name is enough.
    tiny.save(folder)
    assert Disentangler.load(folder).sha256_ == tiny.sha256_


def test_a_changed_folder_is_refused(tiny, weights, tmp_path):
    tiny.save(f"{tmp_path / 'mine'}/")
    other = Disentangler.load()
    other.save(tmp_path / "mine" / "model.safetensors")
    with pytest.raises(WeightsError, match="SHA-256 of its SHA256SUMS"):
        Disentangler.load(tmp_path / "mine")
    (tmp_path / "mine" / "SHA256SUMS").unlink()
    assert Disentangler.load(tmp_path / "mine").sha256_ == other.sha256_
    (tmp_path / "mine" / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="there is no weights file"):
        Disentangler.load(tmp_path / "mine")
    assert local_file(weights) == weights
    with pytest.raises(WeightsError, match="cannot write"):
        tiny.save(f"{weights}/")


# --- the hub --------------------------------------------------------------------------


class _Hub:
    """A server that speaks what ``huggingface_hub`` asks of the hub."""

    def __init__(self):
        self.commits, self.made, self.asked = {}, [], []

    def put(self, repository, files):
        """A new commit of a repository; its name."""
        commit = hashlib.sha1(repr(sorted(files)).encode()).hexdigest()  # noqa: S324
        known = self.commits.setdefault(repository, {})
        commit = f"{len(known):x}{commit}"[:40]
        known[commit] = known["main"] = (commit, files)
        return commit

    def get(self, path):
        """Status, content and headers of a file."""
        self.asked.append(path)
        owner, name, _, revision, file = path.strip("/").split("/", 4)
        known = self.commits.get(f"{owner}/{name}")
        if known is None:
            return 404, b"", {"X-Error-Code": "RepoNotFound"}
        if revision not in known:
            return 404, b"", {"X-Error-Code": "RevisionNotFound"}
        commit, files = known[revision]
        headers = {"X-Repo-Commit": commit}
        if file not in files:
            return 404, b"", {**headers, "X-Error-Code": "EntryNotFound"}
        digest = hashlib.sha256(files[file]).hexdigest()
        return 200, files[file], {**headers, "ETag": f'"{digest}"'}

    def post(self, path, content):
        """The answer to one who makes a repository or a commit."""
        if path == "/api/repos/create":
            self.made.append(json.loads(content)["name"])
            return {"url": f"{self.address}/me/{self.made[-1]}"}
        if path == "/api/validate-yaml":
            # The hub looks at the head of the card.
            return {"errors": [], "warnings": []}
        if path.endswith("/preupload/main"):
            names = [file["path"] for file in json.loads(content)["files"]]
            how = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
            return {"files": [{"path": name, **how} for name in names]}
        lines = [json.loads(line) for line in content.splitlines()]
        files = [line["value"] for line in lines if line["key"] == "file"]
        commit = self.put(
            "me/mine",
            {file["path"]: base64.b64decode(file["content"]) for file in files},
        )
        url = f"{self.address}/me/mine/commit/{commit}"
        return {"commitUrl": url, "commitOid": commit}

    def handler(self):
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self, status, body, headers):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def do_GET(self):
                self.answer(*hub.get(self.path))

            def do_HEAD(self):
                self.do_GET()

            def content(self):
                if "Content-Length" in self.headers:
                    return self.rfile.read(int(self.headers["Content-Length"]))
                # In chunks, each after its length, the last one empty.
                chunks = []
                while size := int(self.rfile.readline(), 16):
                    chunks.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(chunks)

            def do_POST(self):
                text = self.content()
                if self.headers.get("Authorization") != "Bearer secret":
                    self.answer(401, b'{"error": "no login"}', {})
                    return
                body = hub.post(self.path.split("?")[0], text)
                self.answer(200, json.dumps(body).encode(), {})

            def log_message(self, *_):
                pass

        return Handler


@pytest.fixture
def hub():
    pytest.importorskip("huggingface_hub")
    hub = _Hub()
    with _serving(hub.handler()) as address:
        hub.address = address
        yield hub


def _python(hub, code, tmp_path, token=""):
    """Run a program whose hub this is."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": token,
        "OMP_NUM_THREADS": "1",
    }
    code = f"from astro_disentangle import Disentangler, WeightsError\n{code}"
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def _repository(path):
    return {file.name: file.read_bytes() for file in Path(path).iterdir()}


def test_weights_come_from_the_hub(hub, tiny, tmp_path):
    tiny.save(f"{tmp_path / 'mine'}/")
    files = _repository(tmp_path / "mine")
    first = hub.put("me/mine", files)
    wrong = b"0" * 64 + b"  model.safetensors\n"
    hub.put("me/mine", {**files, "SHA256SUMS": wrong})
    hub.put("me/bare", {"sub/tiny.safetensors": files["model.safetensors"]})
    code = f"""
for address in ("hf://me/mine@{first}", "hf://me/bare/sub/tiny.safetensors"):
    print(Disentangler.load(address).sha256_)
for address in ("hf://me/mine", "hf://me/none", "hf://me/mine@old",
                "hf://me/mine/none.safetensors"):
    try:
        Disentangler.load(address)
    except WeightsError as error:
        print(error)
"""
    done = _python(hub, code, tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.strip().splitlines()
    assert lines[:2] == 2 * [tiny.sha256_]
    assert "'hf://me/mine' must have the SHA-256 of its SHA256SUMS" in done.stdout
    for address in ("hf://me/none", "hf://me/mine@old", "hf://me/mine/none"):
        assert f"the hub refuses '{address}" in done.stdout
    # Once fetched they are there without the hub.
    count = len(hub.asked)
    code = f"print(Disentangler.load('hf://me/mine@{first}').sha256_)"
    again = _python(hub, code, tmp_path)
    assert again.stdout.strip() == tiny.sha256_
    assert not [p for p in hub.asked[count:] if "model.safetensors" in p]


def test_weights_go_to_the_hub(hub, weights, tmp_path):
    code = f"""
model = Disentangler.load({str(weights)!r})
print(model.save("hf://me/mine") == model.sha256_)
print(Disentangler.load("hf://me/mine").sha256_ == model.sha256_)
try:
    model.save("hf://me/mine@old")
except WeightsError as error:
    print(error)
"""
    done = _python(hub, code, tmp_path, token="secret")  # noqa: S106
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == ["True", "True"]
    assert "Leave revision and file out" in done.stdout
    _, files = hub.commits["me/mine"]["main"]
    assert sorted(files) == ["README.md", "SHA256SUMS", "model.safetensors"]
    refused = _python(hub, code, tmp_path)
    assert refused.returncode != 0
    assert "WeightsError: the hub refuses 'hf://me/mine'" in refused.stderr


def test_the_package_is_named_where_it_lacks(weights, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"astro_disentangle\[hub\]"):
        Disentangler.load("hf://me/mine")
