# SPDX-License-Identifier: Apache-2.0
"""`index.html`: the runs of a folder with thumbnails; needs no server and no network."""

from __future__ import annotations

from pathlib import Path

import jinja2

from worldsystem.catalogue.runs import Run

INDEX_NAME = "index.html"

_TEMPLATE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Runs</title>
<style>
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 18%, transparent) }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem }
main { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(16rem, 1fr)) }
a { border: 1px solid var(--line); border-radius: 8px; color: inherit; overflow: hidden;
    text-decoration: none }
a:hover, a:focus-visible { outline: 2px solid LinkText }
img, .none { aspect-ratio: 16 / 9; background: var(--line); display: block; object-fit: cover;
             width: 100% }
section { padding: .6rem .8rem }
h1 { font-size: 1.3rem } h2 { font-size: 1rem; margin: 0 }
p { margin: .15rem 0 0; opacity: .75; overflow-wrap: anywhere }
</style>
<h1>{{ runs | length }} runs</h1>
<main>
{% for run in runs %}
<a href="{{ run.name | urlencode }}/{{ 'report.html' if not run.unfinished else '' }}">
{% if run.picture %}<img src="{{ run.name | urlencode }}/{{ run.picture | urlencode }}" alt=""
 loading="lazy">{% else %}<div class="none"></div>{% endif %}
<section><h2>{{ run.name }}</h2>
{% if run.going_on %}<p>being recorded when this page was written</p>
{% elif run.unfinished %}<p>unfinished: it was stopped before its report was written</p>{% else %}
<p>{{ run.source }}</p>
<p>{{ "%.0f" | format(run.duration_s) }} s, {{ run.keyframes }} keyframes,
{{ run.backend }}{% if run.figures.ate_percent is defined %},
{{ "%.2f" | format(run.figures.ate_percent) }} % of the path off{% endif %}</p>{% endif %}
<p>{{ run.started.strftime("%Y-%m-%d %H:%M") }} UTC,
{{ "%.1f" | format(run.size_bytes / 1e6) }} MB</p></section></a>
{% endfor %}
</main>
</html>
"""


def write_index(base: Path, runs: list[Run]) -> Path:
    """Write `index.html` into `base`; each run links to its report."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True)
    path = base / INDEX_NAME
    path.write_text(environment.from_string(_TEMPLATE).render(runs=runs), encoding="utf-8")
    return path
