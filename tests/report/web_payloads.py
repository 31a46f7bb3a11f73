"""Texts that would do something if a page, a spreadsheet or a terminal took them for more than text."""

from __future__ import annotations

SCRIPTS = (
    "<script>alert({n})</script>",
    "</script><script>alert({n})</script>",
    "</textarea><script>alert({n})</script>",
    "</title><script src=//evil.example/{n}.js></script>",
    "<img src=x onerror=alert({n})>",
    '"><svg onload=alert({n})>',
    "' autofocus onfocus=alert({n}) x='",
    '" onmouseover="alert({n})',
    "<a href=javascript:alert({n})>go</a>",
    "<iframe srcdoc='<script>alert({n})</script>'></iframe>",
    "<base href=//evil.example/{n}/>",
    "<meta http-equiv=refresh content='0;url=//evil.example/{n}'>",
    "<link rel=stylesheet href=//evil.example/{n}.css>",
    "<form action=//evil.example/{n}><button>go</button></form>",
    "<style>@import '//evil.example/{n}'</style>",
    "<object data=//evil.example/{n}></object>",
    "--><script>alert({n})</script><!--",
    "{{{{ 7 * {n} }}}}{{% include '/etc/passwd' %}}",
    "https://evil.example/{n}",
    "javascript:alert({n})",
    "&lt;script&gt;alert({n})&lt;/script&gt;",
    "&#60;img src=x onerror=alert({n})&#62;",
)
FORMULAS = (
    '=HYPERLINK("http://evil.example/{n}")',
    "=cmd|' /C calc'!A{n}",
    "+{n}+1",
    "-{n}-1",
    "@SUM(A1:A{n})",
    "\t={n}*2",
)
ESCAPES = (
    "\x1b[2J{n}",
    "\x1b]0;owned {n}\x07",
    "\x1b]8;;http://evil.example/{n}\x1b\\go\x1b]8;;\x1b\\",
    "\x9b31m{n}",
    "\x7f{n}\x08",
    "\u202e{n}\u202c",
    "\x1b[31m<script>alert({n})</script>",
    "\x85\x90{n}",
)
AROUND = ("{}", "note {} end", "<b>{}", "{}\n{}", "'{}", "\x1b{}")
PAYLOADS = tuple(
    around.replace("{}", text.format(n=1000 + 10 * number + place))
    for place, around in enumerate(AROUND)
    for number, text in enumerate((*SCRIPTS, *FORMULAS, *ESCAPES))
)
"""216, each with a number of its own."""
