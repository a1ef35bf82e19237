"""The stand-in for the Hub is held to HTTP's own rules, and to what the Hugging Face libraries do with it."""

import hashlib
import http.client
import json
import subprocess
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from loopback_clients import run_client
from loopback_hub import LoopbackHub

pytestmark = pytest.mark.hub

CONTENT = bytes(range(256)) * 1000


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def hub():
    with LoopbackHub() as hub:
        hub.add_repository("user/data", {"README.md": b"hello", "deep/file.bin": CONTENT})
        yield hub


class Client(http.client.HTTPConnection):
    """One connection, without any of the retries that Hub clients have."""

    def __init__(self, hub: LoopbackHub, timeout: float = 120):
        super().__init__(hub.url.removeprefix("http://"), timeout=timeout)

    def ask(self, path="deep/file.bin", range=None, method="GET") -> http.client.HTTPResponse:
        headers = {"Range": f"bytes={range}"} if range else {}
        self.request(method, f"/datasets/user/data/resolve/main/{quote(path)}", headers=headers)
        return self.getresponse()


# HTTP


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    form=st.sampled_from(["{0}-{1}", "{0}-", "-{0}"]),
    bounds=st.tuples(*[st.integers(0, 2 * len(CONTENT))] * 2).map(sorted),
    on_disk=st.booleans(),
)
@example(form="{0}-{1}", bounds=[0, 0], on_disk=True)
@example(form="{0}-", bounds=[len(CONTENT) - 1, 0], on_disk=False)
@example(form="-{0}", bounds=[0, 0], on_disk=False)
def test_ranges_are_those_of_rfc_9110(hub, tmp_path, form, bounds, on_disk):
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    hub.add_repository("user/data", {"file": path if on_disk else CONTENT})
    first, last = bounds
    positions = {
        "{0}-{1}": range(first, min(last + 1, len(CONTENT))),
        "{0}-": range(first, len(CONTENT)),
        "-{0}": range(max(0, len(CONTENT) - first), len(CONTENT)),
    }[form]
    response = Client(hub).ask("file", form.format(first, last))
    if not positions:
        assert (response.status, response.headers["Content-Range"]) == (416, f"bytes */{len(CONTENT)}")
        return
    assert response.status == 206
    assert response.headers["Content-Range"] == f"bytes {positions[0]}-{positions[-1]}/{len(CONTENT)}"
    assert response.read() == CONTENT[positions.start : positions.stop]
    assert hub.requests()[-1].sent == len(positions)


def test_huge_files_on_disk_are_read_only_where_asked(hub, tmp_path):
    with (tmp_path / "huge.bin").open("wb") as file:
        file.seek(1 << 40)
        file.write(b"the end")
    hub.add_repository("user/data", tmp_path)
    assert Client(hub).ask("huge.bin", "-7").read() == b"the end"
    assert Client(hub).ask("huge.bin", method="HEAD").headers["Content-Length"] == str((1 << 40) + 7)


def test_head_tells_the_size_and_sends_nothing(hub):
    response = Client(hub).ask(method="HEAD")
    assert (response.status, response.headers["Content-Length"], response.read()) == (200, str(len(CONTENT)), b"")
    assert hub.bytes_served() == 0


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/datasets/user/data/resolve/main/nothing", "EntryNotFound"),
        ("/datasets/user/data/resolve/other/README.md", "RevisionNotFound"),
        ("/datasets/user/other/resolve/main/README.md", "RepoNotFound"),
        ("/user/data/resolve/main/README.md", "RepoNotFound"),  # a data set is no model
    ],
)
def test_what_is_missing_is_named_as_the_hub_names_it(hub, path, code):
    client = Client(hub)
    client.request("GET", path)
    response = client.getresponse()
    assert (response.status, response.headers["X-Error-Code"]) == (404, code)


def test_requests_are_counted_by_path_and_range(hub):
    client = Client(hub)
    for path, part in [("README.md", None), ("deep/file.bin", "0-99"), ("deep/file.bin", "50-149")]:
        client.ask(path, part).read()
    assert hub.bytes_served("*.bin") == 200 and hub.bytes_served() == 205
    assert [request.range for request in hub.requests("*.bin")] == [(0, 100), (50, 150)]
    assert [request.status for request in hub.requests(method="GET")] == [200, 206, 206]
    hub.forget_requests()
    assert hub.requests() == []


def test_a_closed_hub_answers_nobody(hub):
    client = Client(hub)
    client.ask("README.md").read()
    hub.close()
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        client.ask("README.md")
    with pytest.raises(ConnectionRefusedError):
        Client(hub).ask("README.md")


# Faults


def test_status_is_sent_as_often_as_ordered_after_those_let_pass(hub):
    hub.faults.add("*.bin", "status", times=2, skip=1, code=429, headers={"Retry-After": "7"})
    client = Client(hub)
    answers = []
    for _ in range(5):
        response = client.ask()
        answers.append((response.status, response.headers["Retry-After"]))
        response.read()
    assert answers == [(200, None), (429, "7"), (429, "7"), (200, None), (200, None)]


def test_concurrent_requests_are_struck_exactly_as_often_as_ordered(hub):
    hub.faults.add("*.bin", "status", times=37, skip=20, code=503)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: Client(hub).ask(range="0-9").status, range(200)))
    assert Counter(answers) == {206: 163, 503: 37}
    assert len(hub.requests("*.bin")) == 200


@pytest.mark.parametrize("code", [500, 503])
def test_status_strikes_only_the_paths_it_names(hub, code):
    hub.faults.add("*/README.md", "status", times=None, code=code)
    assert [Client(hub).ask("README.md", method=method).status for method in ("GET", "HEAD", "GET")] == [code] * 3
    assert Client(hub).ask().status == 200


def test_vanished_files_are_listed_but_gone_for_good(hub):
    hub.faults.add("*.bin", "vanish")
    for _ in range(3):
        response = Client(hub).ask()
        assert (response.status, response.headers["X-Error-Code"]) == (404, "EntryNotFound")
    listing = json.load(urllib.request.urlopen(f"{hub.url}/api/datasets/user/data/tree/main?recursive=true"))
    assert "deep/file.bin" in [entry["path"] for entry in listing]


def test_reset_breaks_the_connection_in_the_middle_of_a_range(hub):
    hub.faults.add("*.bin", "reset", at=0.25)
    response = Client(hub).ask(range="1000-200999")
    assert (response.status, response.headers["Content-Length"]) == (206, "200000")
    with pytest.raises(ConnectionResetError):
        response.read()
    assert hub.bytes_served("*.bin") == 50_000
    assert Client(hub).ask(range="1000-200999").read() == CONTENT[1000:201_000]


def test_truncated_bodies_end_before_their_announced_length(hub):
    hub.faults.add("*.bin", "truncated", at=0.5)
    response = Client(hub).ask()
    with pytest.raises(http.client.IncompleteRead) as stopped:
        response.read()
    assert stopped.value.partial == CONTENT[: len(CONTENT) // 2]
    assert stopped.value.expected == len(CONTENT) - len(CONTENT) // 2


def test_stalled_bodies_stop_while_others_are_served_and_end_with_the_hub(hub):
    hub.faults.add("*.bin", "stall", seconds=3600)
    client = Client(hub)
    response = client.ask()
    assert response.read(len(CONTENT) // 2) == CONTENT[: len(CONTENT) // 2]
    client.sock.settimeout(0.3)
    with pytest.raises(TimeoutError):
        response.read(1)
    assert Client(hub).ask().read() == CONTENT
    hub.close()  # returns although one answer is not sent


def test_stalled_bodies_are_whole_for_the_patient(hub):
    hub.faults.add("*.bin", "stall", seconds=0.05)
    assert Client(hub).ask().read() == CONTENT


def test_corrupt_bytes_are_those_of_the_file_whatever_the_range(hub):
    hub.faults.add("*.bin", "corrupt", times=2, offset=1000, length=10)
    damaged = CONTENT[:1000] + bytes(byte ^ 0xFF for byte in CONTENT[1000:1010]) + CONTENT[1010:]
    assert Client(hub).ask(range="0-999").read() == CONTENT[:1000]  # holds none of them, and does not count
    assert Client(hub).ask().read() == damaged
    assert Client(hub).ask(range="1005-1500").read() == damaged[1005:1501]
    assert Client(hub).ask().read() == CONTENT


def test_corrupt_strikes_the_middle_of_a_file_unless_told(hub):
    hub.faults.add("*.bin", "corrupt")
    received = Client(hub).ask().read()
    changed = [i for i, (sent, stored) in enumerate(zip(received, CONTENT, strict=True)) if sent != stored]
    assert changed == list(range(len(CONTENT) // 2, len(CONTENT) // 2 + 16))


def test_faults_that_do_not_exist_are_refused(hub):
    with pytest.raises(ValueError, match="unknown fault 'slow': choose one of status, refuse, vanish, reset"):
        hub.faults.add("*", "slow")
    with pytest.raises(ValueError, match=r"fault 'reset' takes \['at'\], not \['seconds'\]"):
        hub.faults.add("*", "reset", seconds=3)


def test_clients_that_fail_or_hang_are_reported(hub):
    with pytest.raises(AssertionError, match="exit code 3"):
        run_client("raise SystemExit(3)", hub)
    assert run_client("raise SystemExit(3)", hub, check=False).returncode == 3
    with pytest.raises(subprocess.TimeoutExpired):
        run_client("import time; time.sleep(60)", hub, timeout=0.2)
