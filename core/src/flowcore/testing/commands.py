"""Shell text that survives only exact handling, for the suites of providers and launchers."""

from __future__ import annotations

import shlex
import subprocess
from typing import Final

TEXTS: Final = {
    "quotes": "it's \"quoted\" 'twice' `no`",
    "dollars": "$HOME ${PATH} $(exit 1) $$ $0 $1 $@",
    "backslashes": "a\\b \\n \\\\ \\$HOME \\",
    "newlines": "one\n\n  two\t\n three \n",
    "unicode": "zażółć gęślą jaźń \U0001f680 ¿",
    "globs": "* ? [a] {b,c} ~ !x #y",
    "markers": "EOF\nEND\nCMD\n<<EOF\nFLOWCORE\n",
    "braces": "{command} {0} {{x}} %s %d",
    "long": "x" * 200_000,
}
"""What a command is to print as it stands."""

COMMANDS: Final = {
    **{name: f"printf %s {shlex.quote(text)}" for name, text in TEXTS.items()},
    "heredoc": "cat <<'EOF'\n$x `y` \\z\nEOF\ncat <<EOF\n$((1 + 1))\nEOF",
    "comment at the end": "echo shown # echo hidden",
    "several lines": 'say() {\n  echo "said $1"\n}\nsay one\nsay two',
    "continued line": "echo one \\\n  two",
    "semicolon at the end": "echo one;",
    "pipes and lists": "false || echo one | tr o 0 && ( echo two; echo three ) | wc -l",
    "variables": 'a=\'x  y\'; b=(1 2); echo "$a" ${#b[@]} "${b[@]}"',
}
"""Commands that print the same wherever /bin/bash runs them."""


def printed(command: str) -> str:
    """Return what /bin/bash prints when it reads `command` as a script."""
    done = subprocess.run(
        ["/bin/bash", "-s"], input=command, stdout=subprocess.PIPE, encoding="utf-8", check=True, timeout=90
    )
    return done.stdout
