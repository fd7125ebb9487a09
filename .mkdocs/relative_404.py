"""For mkdocs: the page of a missing address finds its files in any folder and without a server."""

import re


def on_post_template(output_content: str, template_name: str, config) -> str:
    """A template's HTML; 404.html, which mkdocs gives paths from the root, with its own."""
    return relative(output_content) if template_name == "404.html" else output_content


def relative(html: str) -> str:
    """Attributes and the search's settings that begin with / begin with ./ instead.

    >>> relative('<a href="/chords.html">, <a href="//host/x">, {"base": "/", "search": "/a.js"}')
    '<a href="./chords.html">, <a href="//host/x">, {"base": ".", "search": "./a.js"}'
    """
    html = re.sub(r'((?:href|src)=|"search": )"/(?!/)', r'\1"./', html)
    return html.replace('"base": "/"', '"base": "."')
