"""The conversation with a container's first process: a shell that runs one command after another.

What belongs here: that shell's script, and the bytes that go to and fro. What does not: sockets (``session``) and
what a command means. Standard library only.

The SDK's own exec costs three calls: 90 ms at best, 320 in the median of a busy machine, where a shell that is there
already takes 2 and 7; and an evaluation has a dozen commands. What is worse, a command that the engine started runs on
when its client goes, so that a deadline ends nothing; and no exec says what the kernel killed for want of memory. Here
each command has a process group of its own, which ends with the command.

The engine multiplexes both output streams over one connection. What ends a command's output is ``NUL token …`` on
the same stream, with a token that is drawn for this command and never stands in any argument or variable, so that no
output can be taken for it. The shell is killed when the connection ends, and its death is the container's.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from cooperbench_assets.execution.sandboxes.base import note_of_cut

SCRIPT = r"""
set -m
exec 4<&0 </dev/null
exec 5< <(cat <&4; kill -KILL $$)
exec 4<&-
mkdir -p /patches || exit
# What this shell itself has to say of its jobs is no command's output.
exec 6>&2 2>/dev/null
declare +x SHLVL OLDPWD

out_of_memory() {
  local file key value usage limit
  killed=-1
  stopped=0
  reached=0
  for file in /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control; do
    [[ -r $file ]] || continue
    while read -r key value; do
      [[ $key == oom_kill ]] && killed=$value
      [[ $key == oom ]] && stopped=$value
    done <"$file"
  done
  read -r usage </sys/fs/cgroup/memory/memory.max_usage_in_bytes &&
    read -r limit </sys/fs/cgroup/memory/memory.limit_in_bytes && ((usage >= limit)) && reached=1
}

out_of_memory
before=$killed
stopped_before=$stopped
next() { IFS= read -r -d '' -u 5 "$1"; }
while next token && next together && next count; do
  args=()
  while ((count-- > 0)); do next arg || exit; args+=("$arg"); done
  if [[ $together == 1 ]]; then
    (exec "${args[@]}") 5<&- 6>&- 2>&1 &
  else
    (exec "${args[@]}") 5<&- 2>&6 6>&- &
  fi
  wait "$!"
  code=$?
  kill -KILL -- "-$!"
  out_of_memory
  printf '\0%s %d %d %d\0' "$token" "$code" "$((killed < 0 ? -1 : killed - before))" \
    "$((stopped - stopped_before + reached))"
  before=$killed
  stopped_before=$stopped
  [[ $together == 1 ]] || printf '\0%s \0' "$token" >&6
done
"""
"""Reads ``token NUL together NUL count NUL arg NUL …`` and runs it; bash 4.4 or later.

The kernel's count of processes killed for want of memory is read before and after each command: an exit code of 137
alone may have any cause, and a killed grandchild need not show in it. So is whether the container's own limit was
reached (which cgroups of version 1 tell of its whole life): where it was not, the whole machine had no memory left.
"""

COMMAND = ("bash", "--noprofile", "--norc", "-c", SCRIPT)
"""The container's command."""

_FRAME = struct.Struct(">BxxxI")
OUT, ERR = 1, 2
"""The engine's numbers of the streams."""


def request(token: str, args: Sequence[str], *, together: bool) -> bytes:
    """What is sent to have `args` run.

    Args:
        token: Drawn for this command.
        args: Program and arguments.
        together: Put both streams into one, in the order of printing.

    Raises:
        ValueError: for an argument that holds a NUL, as no program's can.
    """
    words = (token, "1" if together else "0", str(len(args)), *args)
    if any("\0" in word for word in words):
        raise ValueError("an argument holds a NUL byte")
    return b"".join(word.encode("utf-8", "surrogateescape") + b"\0" for word in words)


class Frames:
    """Takes the engine's multiplexed bytes apart, in whatever pieces they come."""

    def __init__(self) -> None:
        self._left = bytearray()

    def feed(self, piece: bytes) -> Iterator[tuple[int, bytes]]:
        """Take a piece; yield the number of a stream and its next bytes."""
        self._left += piece
        start = 0
        while len(self._left) - start >= _FRAME.size:
            stream, length = _FRAME.unpack_from(self._left, start)
            end = start + _FRAME.size + length
            if len(self._left) < end:
                break
            yield stream, bytes(self._left[start + _FRAME.size : end])
            start = end
        del self._left[:start]


class Output:
    """One stream of one command, up to its end mark, cut in the middle where it is too long to be kept."""

    def __init__(self, token: str, limit: int) -> None:
        """Begin.

        Args:
            token: The command's.
            limit: Bytes to keep: as much of the beginning as of the end.
        """
        self._mark = b"\0" + token.encode() + b" "
        self._half = max(limit // 2, 2 * len(self._mark))
        self._kept = bytearray()
        self._looked_at = 0
        self._cut = 0
        self.said: list[int] | None = None
        """The numbers in the end mark; None until it has come."""

    def feed(self, piece: bytes) -> None:
        """Take a piece; what follows the end mark is nobody's."""
        if self.said is not None:
            return
        self._kept += piece
        at = self._kept.find(self._mark, max(0, self._looked_at - len(self._mark)))
        if at < 0:
            self._looked_at = len(self._kept)
            self._shorten()
            return
        self._looked_at = at
        end = self._kept.find(b"\0", at + len(self._mark))
        if end >= 0:
            self.said = [int(number) for number in self._kept[at + len(self._mark) : end].split()]
            del self._kept[at:]

    def _shorten(self) -> None:
        # Only when half as much again has come: each cut moves the kept end in memory.
        if len(self._kept) > 3 * self._half:
            surplus = len(self._kept) - 2 * self._half
            del self._kept[self._half : self._half + surplus]
            self._cut += surplus
            self._looked_at = len(self._kept)

    def text(self) -> str:
        """What has come, decoded; a note stands where something was left out."""
        if not self._cut:
            return self._kept.decode("utf-8", "replace")
        beginning, end = self._kept[: self._half], self._kept[self._half :]
        return beginning.decode("utf-8", "replace") + note_of_cut(self._cut) + end.decode("utf-8", "replace")
