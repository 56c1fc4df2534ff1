"""Brings documents that live beside what they describe into the site, and corrects the links to and from them.

In the repository a link leads to a file (``../CHANGELOG.md``); in the site the same file has a page of its own
(``changelog.md``). Files that are no documents (an example configuration) are copied as they are.
"""

import posixpath
import re
from pathlib import Path
from typing import Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_ROOT: Final = Path(__file__).parents[1]
_PAGES: Final = {
    "CHANGELOG.md": "changelog.md",
    "helm/celery-monitor/README.md": "chart.md",
    "deploy/kubernetes/README.md": "kubernetes.md",
    "deploy/compose/README.md": "compose.md",
    "celery-monitor.example.yaml": "celery-monitor.example.yaml",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security-policy.md",
}
"""Path in the repository → path in the site."""
_SOURCE_OF: Final = {page: source for source, page in _PAGES.items()}
_LINK: Final = re.compile(r"\]\(([^)#:\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the documents that exist outside of ``docs``."""
    for source, page in _PAGES.items():
        path = _ROOT / source
        if path.exists():
            files.append(File.generated(config, page, content=path.read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let each relative link lead to the page of the file that it names."""
    del config
    own = _SOURCE_OF.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def corrected(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(own), found[1]))
        inside = _PAGES.get(target) or target.removeprefix("docs/")
        if files.get_file_from_path(inside) is None:
            return found[0]  # the strict build reports it
        return f"]({inside}{found[2] or ''})"

    return _LINK.sub(corrected, markdown)
