"""The families of failures: what real error texts and test outputs are taken for."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cooperbench_assets.benchmark.failures import (
    FAMILIES,
    Failure,
    classify,
    classify_output,
    may_show_infra_failure,
)

DOCKER_RUN = (
    "Command '['docker', 'run', '-d', '--name', 'minisweagent-626554d4', '-w', '/workspace/repo', '--entrypoint', "
    "'/bin/bash', '--rm', 'akhatua/cooperbench-typst:task6554', '-c', 'sleep 2h']' "
)

AGENT_TEXTS = [
    ("auth", "Failed to authenticate. API Error: 401 OAuth access token has been revoked."),
    (
        "auth",
        'litellm.AuthenticationError: AnthropicException - {"type":"error","error":{"type":"authentication_error"',
    ),
    ("auth", "Error code: 401 - {'error': {'message': 'Incorrect API key provided: sk-…'}}"),
    ("auth", "HTTP/1.1 401 Unauthorized"),
    ("auth", "openai.PermissionDeniedError: Error code: 403 - {'error': 'forbidden'}"),
    ("auth", "invalid x-api-key"),
    ("rate_limit", "litellm.RateLimitError: RateLimitError: OpenAIException - Error code: 429"),
    ("rate_limit", 'API Error: 429 {"type":"error","error":{"type":"rate_limit_error","message":"This request"}}'),
    ("rate_limit", "Too Many Requests"),
    ("quota", "You've hit your session limit · resets 3pm (UTC)"),
    ("quota", "litellm.RateLimitError: You exceeded your current quota, please check your plan (insufficient_quota)"),
    ("quota", "Your credit balance is too low to access the API"),
    ("provider", 'API Error: 529 {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'),
    ("provider", "API Error: 500 Internal server error"),
    ("provider", "litellm.BadGatewayError: 502 Bad Gateway"),
    ("provider", "litellm.ServiceUnavailableError: ServiceUnavailableError: Vertex_aiException - 503"),
    ("provider", "Error code: 504 - upstream request"),
    ("provider", "litellm.InternalServerError: InternalServerError: OpenAIException - Connection error."),
    ("provider", "API Error: Connection closed mid-response. The response above may be incomplete."),
    ("provider_timeout", "litellm.Timeout: APITimeoutError - Request timed out."),
    ("provider_timeout", "HTTPSConnectionPool(host='api.example.com', port=443): Read timed out. (read timeout=600)"),
    ("container_start", DOCKER_RUN + "timed out after 120 seconds"),
    ("container_start", DOCKER_RUN + "returned non-zero exit status 125."),
    (
        "container_start",
        DOCKER_RUN.replace("'docker'", "'/opt/wrap/docker-labelled'") + "returned non-zero exit status 1.",
    ),
    (
        "engine",
        "Command '['docker', 'exec', '-w', '/', 'abc', 'echo 401 Unauthorized 429']' timed out after 60 seconds",
    ),
    ("agent_install", "claude-code install failed: npm ERR! 503 Service Unavailable - GET https://example.com/x"),
    ("engine", "UnixHTTPConnectionPool(host='localhost', port=None): Read timed out. (read timeout=65)"),
    (
        "engine",
        "Error while fetching server API version: ('Connection aborted.', FileNotFoundError(2, 'No such file'))",
    ),
    ("engine", '500 Server Error for http+docker://localhost/v1.45/containers/x/start: Internal Server Error ("x")'),
    (
        "image_missing",
        '404 Client Error for http+docker://localhost/v1.45/images: Not Found ("pull access denied for akhatua/x")',
    ),
    ("image_missing", "docker.errors.ImageNotFound: No such image: akhatua/cooperbench-typst:task6554"),
    ("image_missing", "failed to do request: Head https://registry-1.docker.io/v2/: EOF"),
    (
        "container_died",
        '409 Client Error for http+docker://localhost/v1.45/a1/exec: Conflict ("container a1 is not running")',
    ),
    ("container_died", "Error response from daemon: No such container: minisweagent-1"),
    ("oom", "command terminated with exit code 137"),
    ("oom", "bash: line 1: 4242 Killed                  python -m pytest"),
    ("oom", "fork: Cannot allocate memory"),
    ("oom", "the sandbox ran out of memory"),
    ("test_timeout", "Command timed out after 600 seconds"),
    ("disk", "[Errno 28] No space left on device: '/var/lib/docker/tmp'"),
    ("redis", "Error 111 connecting to localhost:6379. Connection refused."),
    ("redis", "redis.exceptions.ConnectionError: Connection closed by server."),
    ("configuration", "litellm.NotFoundError: OpenAIException - The model `gpt-9` does not exist"),
    ("configuration", "Missing credentials. Please pass one of api_key, azure_ad_token"),
    ("configuration", "Agent config file not found: conf.yaml"),
    ("configuration", "OCI runtime exec failed: exec failed: argument list too long"),
    ("network", "litellm.APIConnectionError: [Errno -3] Temporary failure in name resolution"),
    ("interrupted", "KeyboardInterrupt"),
    ("unknown", "something that nobody has seen before"),
    ("unknown", "'NoneType' object is not iterable"),
]

AGENTS_OWN = [
    "litellm.ContextWindowExceededError: Error code: 400 - maximum context length is 200000",
    "API Error: 400 prompt is too long: 215000 tokens > 200000 maximum",
    "litellm.ContentPolicyViolationError: Output blocked by content filtering policy",
    "API Error: 400 Output blocked by content_filter",
    "Repeated FormatError: no tool call in the reply",
    "finish_reason: MALFORMED_FUNCTION_CALL",
    "Malformed tool call: arguments are no JSON",
    "litellm.BadRequestError: tool call arguments are not valid JSON",
]


@pytest.mark.parametrize(("family", "text"), AGENT_TEXTS)
def test_an_agents_error_is_of_its_family(family: str, text: str) -> None:
    failure = classify(text)
    assert failure is not None
    assert (failure.kind, failure.family) == ("infra", family)


@pytest.mark.parametrize("text", AGENTS_OWN)
def test_what_the_agent_did_itself_is_no_infrastructure(text: str) -> None:
    assert classify(text) == Failure("agent_error", "agent_error", False)


@pytest.mark.parametrize("text", AGENTS_OWN)
def test_an_evaluation_cannot_fail_by_the_agents_doing(text: str) -> None:
    failure = classify(text, "eval")
    assert failure is not None
    assert failure.kind == "infra"


def test_a_server_that_fails_while_tests_run_is_the_engines() -> None:
    for text in ("503 Service Unavailable", "Read timed out."):
        failure = classify(text, "eval")
        assert failure is not None
        assert failure.family == "engine"


@pytest.mark.parametrize(
    "text",
    [
        "137 passed, 3 failed in 2.1s",
        "see line 429 of api.py",
        "the answer took 500 ms",
        "error at line 401",
        "error 500 tests failed",
        "commit 401abc2 has no parent",
        "HEAD is now at 5029f4e",
        "expected 503 but got 7",
        "0.401 seconds",
        "code 429.5",
        "processed 529 files, 404 skipped",
        "exit status 1 after 137 files",
    ],
)
def test_a_number_out_of_its_place_is_no_status(text: str) -> None:
    failure = classify(text)
    assert failure is not None
    assert failure.family == "unknown"


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_prefix_is_trusted_above_the_patterns(family: str) -> None:
    failure = classify(f"Branch setup failed: [infra:{family}] 401 Unauthorized, prompt is too long")
    assert failure is not None
    assert (failure.kind, failure.family) == ("infra", family)


def test_a_prefix_of_no_family_is_unknown() -> None:
    failure = classify("[infra:moonlight] 401 Unauthorized")
    assert failure is not None
    assert failure.family == "unknown"


def test_an_agent_killed_at_its_deadline_says_so() -> None:
    failure = classify("[agent_timeout] killed after 90 minutes; last reply 12 s before")
    assert failure is not None
    assert failure.kind == "agent_timeout"


def test_a_consequence_is_never_a_cause() -> None:
    text = 'error: No valid patches in input (allow with "--allow-empty")'
    assert classify(text) is None
    assert classify(f"{text}\nCannot connect to the Docker daemon at unix:///x", "eval") == classify(
        "Cannot connect to the Docker daemon at unix:///x", "eval"
    )


@pytest.mark.parametrize("text", [None, "", "  \n "])
def test_no_text_names_no_cause(text: str | None) -> None:
    assert classify(text) is None


def test_only_what_a_person_must_mend_is_not_retried() -> None:
    waits = {name for name, family in FAMILIES.items() if not family.retryable}
    assert waits == {"auth", "image_missing", "disk", "configuration"}
    spent = classify("Your credit balance is too low")
    resets = classify("You've hit your weekly limit · resets Monday")
    assert spent is not None
    assert resets is not None
    assert (spent.retryable, resets.retryable) == (False, True)


RETRYING = "WARNING: Retrying (Retry(total=4, connect=None)) after connection broken by 'NewConnectionError()': /x/\n"
INFRA_FAILED = [
    ("test_timeout", "Command timed out after 600 seconds", None),
    ("test_timeout", "Timeout after 1800s", None),
    ("test_timeout", "collected 5 items\n", -1),
    ("test_timeout", "running\nTests failed - check output above\n", 124),
    ("oom", "collected 90 items\n..../usr/local/bin/runner.sh: line 42:    77 Killed    python -m pytest x\n", None),
    (
        "oom",
        "test result: ok. 12 passed; 0 failed\nerror: test failed\n  (signal: 9, SIGKILL: kill)\nCleaning up\n",
        None,
    ),
    ("oom", "collected 3 items\n", 137),
    ("oom", "memory allocation of 4294967296 bytes failed\n", None),
    ("container_died", "OCI runtime exec failed: exec failed: container not running: unknown", 126),
    ("container_died", "collected 4 items\n", 143),
    ("network", RETRYING + "ERROR: No matching distribution\nE   ModuleNotFoundError: 'trio'\n1 error in 0.2s", None),
    ("network", "curl: (6) Could not resolve host: static.example.com\n", None),
    ("network", "go: dial tcp: lookup proxy.example.com: no such host\n", None),
    ("network", "npm ERR! getaddrinfo EAI_AGAIN example.com\n", None),
    ("network", "E: Temporary failure resolving 'deb.example.com'\n", None),
    ("disk", "OSError: [Errno 28] No space left on device\n1 error in 2s\n", None),
    ("disk", "write /tmp/b/pkg.a: no space left on device\nFAIL\texample.com/pkg [build failed]\n", 1),
    ("network", "go: dial tcp: lookup proxy.example.com: no such host\nFAIL\texample.com/pkg [setup failed]\n", 1),
    ("oom", "=== 12 passed in 3s ===\nrunner.sh: line 9: 77 Killed    python -m pytest tests/b\n", 1),
    ("disk", "ENOSPC: no space left on device, write\n", None),
]


@pytest.mark.parametrize(("family", "output", "exit_code"), INFRA_FAILED)
def test_a_test_run_that_infrastructure_ended_is_told_from_a_failed_one(
    family: str, output: str, exit_code: int | None
) -> None:
    failure = classify_output(output, exit_code)
    assert failure is not None
    assert failure.family == family


@pytest.mark.parametrize(
    ("output", "exit_code"),
    [
        ("1 failed, 2 passed in 0.1s", 1),
        ("137 passed, 1 failed in 9s", 1),
        ("E  assert 'Command timed out after 5 seconds' in out\n1 failed in 0.2s\nRepository cleaned.\n", None),
        ("E  AssertionError: Killed\n1 failed in 0.2s", None),
        ("test_job_is_Killed FAILED\n1 failed", None),
        (RETRYING + "2 failed, 9 passed in 3s\nRepository cleaned.", None),
        ("could not resolve hostname in test\n--- FAIL: TestResolve (0.00s)\n", None),
        ("out of memory error is raised by design\nTests:  2 failed, 15 passed, 17 total\n", None),
        ("error: No valid patches in input", 128),
        ("", None),
        ("11 errors in 10.49s\nRepository cleaned.", None),
        ("8 failed, 1 passed in 12s\n", 124),
        ("OSError: [Errno 28] No space left on device\n3 failed, 1 passed in 2s", 1),
        ("E  assert 'No space left on device' not in log\n== 1 failed, 2 passed in 0.1s ==\nRepository cleaned.\n", 1),
    ],
)
def test_a_run_that_failed_by_itself_is_no_infrastructure(output: str, exit_code: int | None) -> None:
    assert classify_output(output, exit_code) is None


def test_the_middle_of_a_very_long_output_without_a_summary_is_still_judged_by_its_end() -> None:
    output = (
        "x\n" * 300_000 + "/usr/local/bin/runner.sh: line 42:    77 Killed    python -m pytest x\nRepository cleaned.\n"
    )
    failure = classify_output(output)
    assert failure is not None
    assert failure.family == "oom"


_PIECES = st.sampled_from(
    [output for _, output, _ in INFRA_FAILED]
    + ["3 passed in 1s", "2 failed", "--- FAIL: TestX", "\n", "é\t\\n", "Repository cleaned.\n", "E  assert 1 == 2\n"]
)


@given(st.lists(_PIECES | st.text(max_size=20), max_size=6))
@example(["\\", "nCommand timed out after 5 seconds"])
@example(["OCI runtime exec failed: exec failed: container not running: unknown", "3 passed in 1s"])
@example(["runner.sh: line 42:    77 Killed\n", "2 failed", "¹"])
@example(["runner.sh: line 42:    77 Killed\n", "٣ passed"])
def test_the_quick_look_never_misses_what_the_full_one_finds(pieces: list[str]) -> None:
    output = "".join(pieces)
    raw = msgspec.json.encode(output)
    if classify_output(output) is not None:
        assert may_show_infra_failure(memoryview(raw))


FAILED = [
    "============ 1 failed, 2 passed in 0.10s ============",
    "3 failed in 1.2s",
    "==== 2 failed, 1 warning, 1 error in 61.02s (0:01:01) ====",
    "--- FAIL: TestResolve (0.00s)",
    "FAIL\texample.com/pkg\t0.012s",
    "Tests:       2 failed, 15 passed, 17 total",
    "test result: FAILED. 3 passed; 1 failed; 0 ignored",
]


@pytest.mark.parametrize("summary", FAILED)
@given(before=st.lists(_PIECES), after=st.lists(_PIECES), exit_code=st.sampled_from([1, 124, 137, 143, None]))
def test_nothing_that_code_prints_around_a_summary_with_failures_makes_it_infrastructure(
    summary: str, before: list[str], after: list[str], exit_code: int | None
) -> None:
    output = "\n".join(["".join(before), summary, "".join(after)])
    assert classify_output(output, exit_code) is None


def known(failure: Failure | None) -> bool:
    """Whether an answer is one of the documented ones."""
    return failure is None or failure.family in FAMILIES or failure.kind != "infra"


@given(st.text())
def test_any_text_gets_an_answer(text: str) -> None:
    for failure in (classify(text), classify(text, "eval"), classify_output(text)):
        assert known(failure)


@pytest.mark.parametrize("piece", ["x", "error ", "code 4", "context ", "1", " \n", "Command '['docker', '"])
def test_a_very_long_text_is_looked_at_in_time_that_grows_with_its_length(piece: str) -> None:
    # A pattern that backtracks takes hours: no test may take so long (timeout in pyproject.toml).
    text = piece * (400_000 // len(piece))
    assert known(classify(text))
    assert known(classify_output(text))
