"""What a failure's text means: the families of infrastructure failures, and what is the agent's own doing.

What belongs here: the one table of families, the patterns that lead to them, and nothing that reads files.
What does not: which text of which file is looked at (``evidence``), and what follows for a pair (``outcomes``).

Two kinds of text are told apart. An *error* is a sentence that a program wrote about its own failure
(``classify``). An *output* is what a test run printed (``classify_output``): anything can stand in it, so only
what the sandbox, the shell or a package installer says, and no finished test run contradicts, counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["infra", "agent_error", "agent_timeout"]
Stage = Literal["agent", "eval"]


@dataclass(frozen=True, slots=True)
class Family:
    """One family of failures: whether another try can help without a person, and what a person would do."""

    name: str
    retryable: bool
    meaning: str
    remedy: str


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family("auth", False, "The model's endpoint refused the key", "Renew or set the key, then run again"),
        Family("rate_limit", True, "Too many requests for the endpoint", "Lower limits.concurrency"),
        Family("quota", True, "A usage limit was reached", "Wait for its reset, or raise it"),
        Family("provider", True, "The endpoint failed or was overloaded", "Run again"),
        Family("provider_timeout", True, "The endpoint did not answer in time", "Run again"),
        Family("container_start", True, "A container did not start", "Run again; look at the engine's load"),
        Family("agent_install", True, "The agent could not be installed in its container", "Run again"),
        Family("engine", True, "The container engine was overloaded or away", "Lower the machine's slots"),
        Family("image_missing", False, "A task's image is not there", "Pull the task images"),
        Family("container_died", True, "A container ended under a test or an agent", "Run again"),
        Family("oom", True, "The kernel killed a process for want of memory", "Give it more memory"),
        Family("test_timeout", True, "A test run did not end in time", "Run again; a repeat is a fail"),
        Family(
            "tests_aborted",
            True,
            "A test run was killed, and nothing but the tested code is known to be at fault",
            "Run again; a repeat is a fail. If it was the memory limit of the container, raise docker.memory_gb",
        ),
        Family("node_lost", True, "A node of the cluster did not answer any more, or died", "Run again"),
        Family("eval_timeout", True, "An evaluation did not end in time, outside its test runs", "Run again"),
        Family("network", True, "A name or host could not be reached", "Check the network of the sandbox"),
        Family("disk", False, "The disk was full", "Free disk space, then run again"),
        Family("redis", True, "The message server could not be reached", "Check the Redis address"),
        Family("configuration", False, "The run was asked for in a way that cannot work", "Correct defs.yaml"),
        Family("interrupted", True, "The try was ended from outside", "Run again"),
        Family("unknown", True, "No known cause", "Read the evidence"),
    )
}
"""Every family of infrastructure failures, by name."""

REPEAT_FAILS: dict[str, Literal["tests", "test_timeout"]] = {"test_timeout": "test_timeout", "tests_aborted": "tests"}
"""Families that a patch may be at fault for itself, with what a repeat on the same patch is a fail for."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What a text says: infrastructure of a family, or an end that is the agent's own."""

    kind: Kind
    family: str
    retryable: bool


AGENT_ERROR = Failure("agent_error", "agent_error", False)
AGENT_TIMEOUT = Failure("agent_timeout", "agent_timeout", False)


def infra(family: str, retryable: bool | None = None) -> Failure:
    """An infrastructure failure of a family; an unheard-of family counts as `unknown`."""
    known = FAMILIES.get(family, FAMILIES["unknown"])
    return Failure("infra", known.name, known.retryable if retryable is None else retryable)


UNKNOWN = infra("unknown")


def _code(codes: str) -> str:
    """Pattern of an HTTP status in a place where it is one, so that no count or line number is taken for it."""
    named = r"(?:\bHTTP(?:/\d(?:\.\d)?)?|[Ee]rror(?:_?[Cc]ode)?|\b[Ss]tatus(?:_?[Cc]ode)?|\b[Cc]ode)"
    no_count = r"(?![\w]|\.\d|\s*(?:ms|s|sec|seconds|minutes|tests?|passed|failed|items|lines|bytes)\b)"
    reason = (
        r"(?:Client Error|Server Error|Unauthorized|Forbidden|Payment Required|Too Many Requests|Not Found"
        r"|Internal Server Error|Bad Gateway|Service Unavailable|Gateway Time-?out)"
    )
    before = rf"{named}[\"']?(?:\s+(?:code|status))?[\"']?\s*[:=(\[]?\s*[\"']?(?:{codes}){no_count}"
    return rf"{before}|\b(?:{codes})\s+{reason}"


@dataclass(frozen=True, slots=True)
class _Rule:
    pattern: re.Pattern[str]
    family: str
    retryable: bool | None = None


def _rule(family: str, *patterns: str, retryable: bool | None = None) -> _Rule:
    return _Rule(re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.MULTILINE), family, retryable)


_KILLED = r"^(?:.*\bline \d+:)?\s*(?:\d+\s+)?Killed\b"

_RULES: tuple[_Rule, ...] = (
    # A docker command's text carries whole scripts and task names: nothing else in it may be looked at.
    _rule("container_start", r"^Command '\['[^']*', 'run'"),
    _rule("image_missing", r"^Command '\['[^']*', 'pull'"),
    _rule("engine", r"^Command '\['[^']*docker[^']*', '"),
    _rule("agent_install", r"[Ii]nstall(?:ation)? failed", r"[Ff]ailed to install"),
    _rule("disk", r"No space left on device", r"\[Errno 28\]", r"\bENOSPC\b", r"[Dd]isk quota exceeded"),
    _rule(
        "image_missing",
        r"No such image",
        _code("404") + r"[^\n]*\bimages?\b",
        r"ImageNotFound",
        r"pull access denied",
        r"manifest (?:unknown|for [^\n]* not found)",
        r"\bregistry\b|\bregistry-1\.docker\.io\b",
        r"toomanyrequests",
    ),
    _rule(
        "container_died",
        r"No such container",
        _code("409") + r"[^\n]*not running",
        r"[Cc]ontainer \S+ is not running",
        r"cannot exec in a stopped",
        r"[Ss]andbox (?:has )?(?:already )?(?:terminated|been shut ?down|not found)",
    ),
    _rule(
        "oom",
        r"exit(?:ed)?(?: with)?(?: code| status)?\s*[:=]?\s*(?:137|-9)\b",
        _KILLED,
        r"OOM-?[Kk]illed|\bOOM\b",
        r"[Oo]ut of memory",
        r"Cannot allocate memory",
        r"signal: 9, SIGKILL",
    ),
    _rule("configuration", r"[Aa]rgument list too long"),
    _rule(
        "engine",
        r"UnixHTTPConnectionPool",
        r"http\+docker://",
        r"Error while fetching server API version",
        r"[Cc]annot connect to the Docker daemon",
        r"docker\.sock",
        r"Error response from daemon",
    ),
    _rule("test_timeout", r"Command timed out after [\d.]+ s", r"^Timeout after \d+s"),
    _rule("redis", r"\bError -?\d+ connecting to\b", r"\b[Rr]edis\b", r"redis\.exceptions"),
    _rule(
        "agent_error",
        r"ContextWindowExceeded|context_length_exceeded|[Cc]ontext (?:length|window)[^\n]{0,40}exceeded",
        r"exceed[^\n]{0,40}context (?:length|window|limit)|maximum context length|[Pp]rompt is too long",
        r"[Ii]nput is too long|[Ii]nput length and `?max_tokens`? exceed",
        r"ContentPolicyViolation|content[_ -]?(?:policy|management policy|filter)|ResponsibleAIPolicy",
        r"[Bb]locked by (?:the )?(?:safety|content)|violat\w+ (?:our|the|Anthropic's|OpenAI's) \w*\s*policy",
        r"\b(?:Repeated)?FormatError\b|MALFORMED_FUNCTION_CALL|[Mm]alformed (?:tool|function)[ -_]?call",
        r"[Ii]nvalid (?:tool|function) call|(?:tool|function)[ _]call[^\n]{0,60}(?:not valid|invalid) JSON",
        r"[Ff]ailed to parse (?:the )?(?:tool|function)|without (?:a )?(?:corresponding|matching) `?tool_result",
    ),
    _rule(
        "quota",
        r"insufficient_quota|exceeded your current quota|credit balance is too low|billing",
        r"BudgetExceeded|[Bb]udget has been exceeded|" + _code("402"),
        retryable=False,
    ),
    _rule("quota", r"hit your (?!rate)[^\n]{0,60}limit", r"[Uu]sage limit (?:reached|exceeded)"),
    _rule(
        "auth",
        _code("401|403"),
        r"[Ii]nvalid authentication|AuthenticationError|authentication_error|[Ff]ailed to authenticate",
        r"\brevoked\b|[Tt]oken (?:has |is )?expired|PermissionDenied|permission_error",
        r"[Ii]nvalid (?:x-)?[Aa][Pp][Ii][- _]?[Kk]ey|[Ii]ncorrect API key|\bUnauthorized\b",
    ),
    _rule("rate_limit", _code("429"), r"RateLimit|[Rr]ate[ _-]limit|Too [Mm]any [Rr]equests|hit your rate limit"),
    _rule(
        "network",
        r"[Nn]ame resolution|[Nn]ame or service not known|[Cc]ould not resolve host|getaddrinfo failed",
        r"[Nn]odename nor servname|[Nn]etwork is unreachable|[Nn]o route to host",
    ),
    _rule(
        "configuration",
        r"NotFoundError|Missing credentials|API[_ ]KEY (?:is )?(?:missing|not set)|LLM Provider NOT provided",
        r"(?:[Cc]onfig|[Ff]eature|[Tt]ests patch|Dataset)[^\n]{0,20} not found|Unknown agent",
        r"[Mm]odel\b[^\n]{0,60}(?:does not exist|not found|is not supported)|UnsupportedParams|BadRequestError",
        r"No module named|FileNotFoundError",
        _code("404"),
    ),
    _rule(
        "provider",
        _code("500|502|503|504|529"),
        r"[Oo]verloaded|BadGateway|Bad [Gg]ateway|ServiceUnavailable|Service [Uu]navailable|InternalServerError",
        r"[Ii]nternal [Ss]erver [Ee]rror|mid-response|APIConnectionError|[Cc]onnection (?:error|aborted|reset)",
        r"RemoteProtocolError|[Pp]eer closed connection|Server disconnected|Connection refused",
    ),
    _rule("provider_timeout", r"[Tt]imed out|[Tt]ime-?out\b|TIMEOUT|TimeoutE"),
    _rule("interrupted", r"KeyboardInterrupt|SystemExit|\bSIG(?:TERM|INT|KILL)\b|[Ii]nterrupted"),
)
"""Order matters: the more telling pattern stands first, and what quotes other texts before what is quoted."""

_PREFIX = re.compile(r"\[infra:(\w+)\]")
_DEADLINE = re.compile(r"\[agent_timeout\]")
_CONSEQUENCE = re.compile(r"(?m)^.*No valid patches in input.*$\n?")

_AT_EVAL = {"provider": "engine", "provider_timeout": "engine"}
"""No model is called while tests run: a server that fails there is the engine's."""


def classify(text: str | None, stage: Stage = "agent") -> Failure | None:
    """What an error's text says; None where it names no cause at all.

    A prefix ``[infra:<family>]``, which this project's own sandboxes and runners write, is trusted above every
    pattern. A text that matches nothing is of family ``unknown``.

    Args:
        text: The error as recorded.
        stage: Where it came from; what would be the agent's own doing cannot come from an evaluation.
    """
    if prefix := _PREFIX.search(text or ""):
        return infra(prefix[1])
    if text and _DEADLINE.search(text):
        return AGENT_TIMEOUT
    cause = _CONSEQUENCE.sub("", text or "").strip()
    if not cause:
        return None
    for rule in _RULES:
        if rule.pattern.search(cause):
            if rule.family != "agent_error":
                return infra(_AT_EVAL.get(rule.family, rule.family) if stage == "eval" else rule.family, rule.retryable)
            if stage == "agent":
                return AGENT_ERROR
    return UNKNOWN


# What a test run printed.

# ASCII: the same in text and in bytes, where no letter or digit is another.
_PLAIN_SUMMARY = r"(?a:\d (?:passed|failed)\b)|--- (?:PASS|FAIL):|test result: "
_SUMMARY = re.compile(rf"{_PLAIN_SUMMARY}|^(?:ok|FAIL)\s+\S+\s+(?!\[(?:build|setup) failed)|^Tests:\s", re.MULTILINE)
_FAILED = re.compile(
    r"^[= ]*(?:\d+ [a-z]+, )*[1-9]\d* failed(?:, \d+ [a-z]+)* in \d|^--- FAIL: \S|^FAIL\s+\S+\s+\d+\.\d+s$"
    r"|^Tests:\s+[1-9]\d* failed|^test result: FAILED",
    re.MULTILINE,
)
"""A whole line of a summary in which tests failed, as pytest, Go, Jest and Cargo write it."""

_PLAIN_SUMMARY_BYTES = re.compile(_PLAIN_SUMMARY.encode())
_SUMMARY_NEEDLES = (b" passed", b" failed", b"--- PASS:", b"--- FAIL:", b"test result: ")
_TIMED_OUT = re.compile(r"(?:\A|\n)Command timed out after [\d.]+ s(?:econds)?\s*\Z|\ATimeout after \d+s\s*\Z")
_HEAD_SEARCHED = 1 << 13
_END_SEARCHED = 1 << 14
_TAILS = (1 << 11, _END_SEARCHED)
_LONGEST_LINE = 1000


@dataclass(frozen=True, slots=True)
class _Mark:
    """A literal that an output is searched for, and what the line around it must say."""

    literal: str
    family: str
    line: re.Pattern[str]


def _mark(family: str, literal: str, line: str = "") -> _Mark:
    return _Mark(literal, family, re.compile(line))


_MARKS: tuple[_Mark, ...] = (
    _mark("disk", "o space left on device"),
    _mark("container_died", "No such container: "),
    _mark("container_died", "is not running", r"[Cc]ontainer [0-9a-f]{12,64} is not running"),
    _mark("container_died", "OCI runtime exec failed"),
    _mark("oom", "Killed", r"^(?:.*\bline \d+:)?\s*(?:\d+\s+)?Killed\b|Killed signal terminated program|OOMKilled"),
    _mark("oom", "SIGKILL", r"signal: 9, SIGKILL"),
    _mark("oom", "Cannot allocate memory"),
    _mark("oom", "memory allocation of", r"memory allocation of \d+ bytes failed"),
    _mark("oom", "ut of memory", r"\b[Oo]ut of memory\b"),
    _mark("network", "Retrying (Retry(total=", r"Connection|NameResolution|ConnectTimeout|Read timed out"),
    _mark("network", "Temporary failure ", r"Temporary failure (?:in name resolution|resolving)"),
    _mark("network", "ould not resolve ", r"[Cc]ould not resolve (?:host|proxy)"),
    _mark("network", "spurious network error"),
    _mark("network", "getaddrinfo ", r"getaddrinfo (?:ENOTFOUND|EAI_AGAIN|failed)"),
    _mark("network", "dial tcp", r"dial tcp.*(?:no such host|i/o timeout|connection refused|unreachable)"),
    _mark("network", "etwork is unreachable"),
    _mark("network", "ame or service not known"),
)
_NEEDLES = tuple(mark.literal.encode() for mark in _MARKS)
_TIMEOUT_NEEDLES = (b"Command timed out after ", b"Timeout after ")

_EXIT_CODES = {
    -1: "test_timeout",
    124: "test_timeout",
    137: "oom",
    -9: "oom",
    143: "container_died",
    -15: "container_died",
}
TELLING_EXIT_CODES = frozenset(_EXIT_CODES)
"""Exit codes of a test run that tell of its being killed."""


def may_show_infra_failure(raw: memoryview) -> bool:
    """A quick look at an output that is still undecoded JSON.

    Most failed runs end in a summary of their tests, and then nothing before it matters. Of a very long output
    the middle is left out: what ends a run stands where it was set up, or where it ended.
    """
    end = bytes(raw[-200:])
    if any(needle in end for needle in _TIMEOUT_NEEDLES):
        return True
    rest = _after_summary(raw)
    return any(needle in rest for needle in _NEEDLES)


def _after_summary(raw: memoryview) -> bytes:
    """What stands behind the last summary near an output's end; without one its head and its end."""
    for length in _TAILS:
        tail = bytes(raw[-length:])
        after = max(tail.rfind(summary) for summary in _SUMMARY_NEEDLES)
        if after >= 0 and _PLAIN_SUMMARY_BYTES.search(tail, max(0, after - 1)):
            return tail[after:]
    if len(raw) <= _HEAD_SEARCHED + _END_SEARCHED:
        return bytes(raw)
    return bytes(raw[:_HEAD_SEARCHED]) + tail


def classify_output(output: str, exit_code: int | None = None) -> Failure | None:
    """The infrastructure failure of a test run, judged by its output and exit code; None where it failed by itself.

    A sign counts only if no summary of a test run follows it: tests that ran after it were not kept from running.
    None counts where a summary tells of tests that failed: the tested code can print anything before and after it.
    """
    if tests_failed(output):
        return None
    if _TIMED_OUT.search(output, max(0, len(output) - 200)):
        return infra("test_timeout")
    for mark in _MARKS:
        place = _last_place(output, mark)
        if place is not None and not _summary_after(output, place):
            return infra(mark.family)
    if exit_code in _EXIT_CODES and not (exit_code == 124 and _SUMMARY.search(output)):
        return infra(_EXIT_CODES[exit_code])
    return None


def _last_place(output: str, mark: _Mark) -> int | None:
    """End of the last mark whose line says what it must; None where there is none."""
    # str.find is several times as fast as str.rfind, and most often nothing is there.
    place = output.rfind(mark.literal) if mark.literal in output else -1
    while place >= 0:
        start = output.rfind("\n", max(0, place - _LONGEST_LINE), place) + 1 or max(0, place - _LONGEST_LINE)
        end = output.find("\n", place, place + _LONGEST_LINE)
        end = min(len(output), place + _LONGEST_LINE) if end < 0 else end
        if mark.line.search(output[start:end]):
            return place + len(mark.literal)
        place = output.rfind(mark.literal, 0, start)
    return None


def tests_failed(output: str) -> bool:
    """Whether a summary tells of tests that failed; most often it is near the end."""
    near_end = output.find("\n", max(0, len(output) - _TAILS[1])) + 1
    return bool(_FAILED.search(output, near_end) or _FAILED.search(output))


def says_disk_is_full(output: str) -> bool:
    """Whether an output names a full disk anywhere: worth a look at the disk, and no proof."""
    return "o space left on device" in output


def _summary_after(output: str, place: int) -> bool:
    """Whether a summary of a test run stands behind a place; most often it is at the very end."""
    near_end = max(place, len(output) - _TAILS[1])
    return bool(_SUMMARY.search(output, near_end) or _SUMMARY.search(output, place))


def excerpt(output: str, limit: int = 2000) -> str:
    """The end of an output, where it says why it ended, cut to `limit` characters."""
    return output.strip()[-limit:]
