"""What the server answers, and to whom: driven over real connections."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import pytest
from click.testing import CliRunner

from cooperbench_assets.cli import cli
from cooperbench_assets.project import ROOT_VARIABLE
from cooperbench_assets.viewer.server import listen
from cooperbench_assets.viewer.shelves import library_of_logs
from cooperbench_assets_tests.experiments import tree
from cooperbench_assets_tests.viewer.places import KEY, NEVER_READ, make_experiment, serving, viewing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cooperbench_assets.experiment_context import ExperimentContext


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> ExperimentContext:
    return make_experiment(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def address(experiment: ExperimentContext) -> Iterator[str]:
    with viewing(experiment) as address:
        yield address


def ask(
    address: str, path: str, method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def data(address: str, key: str) -> Any:
    status, _, body = ask(address, f"/data/{key}")
    assert status == 200, body
    return json.loads(body)


def test_another_host_name_is_refused_and_the_names_of_loopback_are_answered(address: str) -> None:
    for host in ("evil.example", "evil.example:3001", "127.0.0.1.evil.example", ""):
        status, _, body = ask(address, "/data/index", host=host)
        assert (status, b"does not answer" in body) == (403, True), host
    for host in ("localhost:8080", "127.0.0.1", "[::1]:3001"):
        assert ask(address, "/data/index", host=host)[0] == 200, host


def test_every_answer_forbids_scripts_of_others_and_reading_from_elsewhere(address: str) -> None:
    pages = ("/", "/data/index", "/static/app.js", "/nothing", "/data/nothing", "/raw/made/x")
    for path in pages:
        headers = ask(address, path)[1]
        assert "script-src 'self'" in headers["content-security-policy"], path
        assert "unsafe" not in headers["content-security-policy"], path
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers


def test_only_files_of_a_pair_are_given_out_whatever_the_address_says(
    address: str, experiment: ExperimentContext
) -> None:
    _, hostile, *_ = experiment.subset().pairs
    place = f"made/coop-comm/0/{hostile.name}"
    files = [file["name"] for file in data(address, f"pair/{place}")["files"]]
    assert not [name for name in files if "outside" in name]
    outside = ("outside/passwd", "../../../../../../etc/passwd", f"coop/{hostile.name}/outside/passwd", "/etc/passwd")
    for name in outside:
        for path in (f"/raw/{place}/{name}", f"/raw/{place}/{quote(name, safe='')}", f"/data/raw/{place}/{name}"):
            status, _, body = ask(address, path)
            assert status == 404, path
            assert b"root:" not in body
    for path in (
        "/static/../server.py",
        "/static/..%2fserver.py",
        "/report/made/../../results.duckdb",
        "/data/pair/made/../x",
    ):
        assert ask(address, path)[0] == 404, path


def test_a_raw_file_is_given_out_whole_and_without_keys(address: str, experiment: ExperimentContext) -> None:
    talk, *_ = experiment.subset().pairs
    file = f"coop/{talk.name}/agent{talk.features[1]}_traj.json"
    status, headers, body = ask(address, f"/raw/made/coop-comm/0/{talk.name}/{file}")
    assert (status, headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert json.loads(body)["messages"][0]["role"] == "system"
    assert KEY.encode() not in body


def test_a_search_finds_a_message_that_no_page_shows_in_the_list(address: str, experiment: ExperimentContext) -> None:
    talk, *_ = experiment.subset().pairs
    assert data(address, "search/made?text=parse_all()")["paths"] == [f"run-coop-comm/coop/{talk.name}"]
    with serving(library_of_logs(experiment.logs)) as foreign:
        name = experiment.logs.name
        assert data(foreign, f"search/{name}?text={quote(NEVER_READ[:9])}")["paths"] == [
            f"run-coop-comm/coop/{talk.name}"
        ]
        page = data(foreign, f"pair/{name}/run-coop-comm/coop/{talk.name}")
        assert [one["read"] for one in page["messages"]] == ["read", "never"]
        assert ask(foreign, f"/data/headline/{name}")[0] == 200


def test_a_note_is_kept_only_if_a_page_of_the_viewer_sends_it(address: str, experiment: ExperimentContext) -> None:
    talk, *_ = experiment.subset().pairs
    path = f"/notes/made/coop-comm/0/{talk.name}"
    body = json.dumps({"agent": "agent1", "index": 2, "text": "it says too much", "labels": ["verbose"]}).encode()
    refused: tuple[dict[str, str], ...] = (
        {},
        {"origin": "http://evil.example"},
        {"origin": address, "content_type": "text/plain"},
    )
    for headers in refused:
        assert ask(address, path, "POST", body, **headers)[0] == 403
    assert ask(address, path, "POST", body, origin=address, content_type="application/json")[0] == 200
    (note,) = data(address, f"pair/made/coop-comm/0/{talk.name}")["notes"]
    assert (note["agent"], note["index"], note["labels"]) == ("agent1", 2, ["verbose"])
    assert ask(address, f"{path}x", "POST", body, origin=address, content_type="application/json")[0] == 404


def test_the_experiment_page_has_every_planned_cell_with_its_outcomes_and_what_it_waits_for(
    address: str, experiment: ExperimentContext
) -> None:
    reason = "the experiment's budget is reached: 2.01 of 2.00 USD"
    tree(experiment, "coop-nocomm").provenance(truncated=True, truncated_reason=reason)
    page = data(address, "experiment/made")
    (waiting,) = page["waiting"]
    assert waiting.startswith("made coop-nocomm/0 waits for money, with 0 pairs not judged")
    assert f"its last launch ended because {reason}. Raise it (limits in defs.yaml)" in waiting
    cells = {"/".join(cell["address"]): cell["counts"] for cell in page["cells"]}
    assert cells.keys() == {"solo/0", "solo/1", "coop-comm/0", "coop-nocomm/0"}
    assert cells["solo/0"] == {"fail": 1, "pass": 3}
    assert cells["coop-comm/0"]["infra_error"] == 1


def test_what_is_not_there_is_said_in_a_sentence(address: str, experiment: ExperimentContext) -> None:
    status, _, body = ask(address, "/data/experiment/nosuch")
    assert (status, body.decode()) == (404, "There is no 'nosuch' here; there are: made")
    assert b"has no cell solo/9" in ask(address, "/data/pair/made/solo/9/a/1/f1_f2")[2]


def test_an_address_that_is_taken_or_no_loopback_one_is_refused_in_one_sentence(
    experiment: ExperimentContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ROOT_VARIABLE, str(experiment.project.root))
    (experiment.project.root / "dagster.yaml").touch()
    with listen("http://127.0.0.1:0") as taken:
        port = taken.getsockname()[1]
        said = CliRunner().invoke(cli, ["view", "--port", str(port)])
        assert said.exit_code == 3
        assert f"the viewer cannot listen at http://127.0.0.1:{port} (Address already in use)" in said.stderr
        assert len(said.stderr.splitlines()) == 1
    monkeypatch.setenv("COOPERBENCH_ASSETS_VIEWER_URL", "http://0.0.0.0:3001")
    assert "loopback only" in CliRunner().invoke(cli, ["view"]).stderr
    said = CliRunner().invoke(cli, ["view", "nosuch"])
    assert "'nosuch' is neither an experiment (experiments here: made) nor a folder of logs" in said.stderr


def test_the_report_is_served_in_an_origin_of_its_own_and_its_links_lead_to_pages_here(
    address: str, experiment: ExperimentContext
) -> None:
    folder = experiment.project.report / "made"
    folder.mkdir(parents=True)
    (folder / "report.html").write_text('<a href="http://127.0.0.1:9/#/e/made/solo/0/a/1/f1_f2">P</a>')
    (folder / "out").symlink_to(experiment.project.root)
    status, headers, body = ask(address, "/report/made/report.html")
    assert (status, body) == (200, b'<a href="../../index.html#/e/made/solo/0/a/1/f1_f2">P</a>')
    assert headers["content-security-policy"].startswith("sandbox allow-scripts")
    assert ask(address, "/index.html")[0] == 200
    for path in ("/report/made/out/dagster.yaml", "/report/made/nothing.csv", "/report/nosuch/report.html"):
        assert ask(address, path)[0] == 404, path
