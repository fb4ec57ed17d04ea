"""Checks a folder of HTML pages: every link to a page, an anchor or a file of the folder leads there. Prints how many there are.

    python tools/check_links.py FOLDER

Links to other hosts are not followed. Exit status 1, with the broken ones on stderr, if there are any.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit


class Page(HTMLParser):
    def __init__(self, path):
        super().__init__()
        self.anchors = set()
        self.links = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name == "id" or (name == "name" and tag == "a"):
                self.anchors.add(value)
            elif name in ("href", "src") and value:
                self.links.append(value)


def main(folder):
    folder = folder.resolve()
    pages = {path: Page(path) for path in sorted(folder.rglob("*.html"))}
    count = 0
    broken = []
    for path, page in pages.items():
        for link in page.links:
            target, anchor = urldefrag(link)
            if urlsplit(target).scheme or target.startswith("//"):
                continue
            count += 1
            there = (path.parent / unquote(urlsplit(target).path)).resolve() if target else path
            if there.is_dir():
                there /= "index.html"
            if not there.is_relative_to(folder) or not there.exists():
                broken.append(f"{path.relative_to(folder)}: {link}: there is no such file")
            elif anchor and there in pages and unquote(anchor) not in pages[there].anchors:
                broken.append(f"{path.relative_to(folder)}: {link}: the page has no such anchor")
    for line in broken:
        print(line, file=sys.stderr)
    print(count)
    return 1 if broken or not count else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
