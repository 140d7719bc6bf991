"""An HTML page, read strictly: every element is closed in order, and every address is collected."""

from html.parser import HTMLParser

VOID = {"meta", "img", "br", "hr", "input", "link"}
ADDRESSES = {"src", "href", "srcset", "action", "data", "poster", "background", "xlink:href", "formaction"}


class Page(HTMLParser):
    """A page as a test looks at it.

    Raises:
      AssertionError: an element is not closed, or another one is; two elements have one id; an attribute comes twice.
    """

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.identities: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []  # attributes that would run a script
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.metas: list[dict[str, str | None]] = []
        self.words: list[str] = []  # the text that a reader sees
        assert text.startswith("<!DOCTYPE html>\n")
        self.feed(text)
        self.close()
        assert not self.open, self.open
        assert len(set(self.identities)) == len(self.identities)

    @property
    def text(self) -> str:
        """What a reader sees, with single spaces."""
        return " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        assert len(values) == len(attrs), f"an attribute of <{tag}> comes twice"
        if tag not in VOID:
            self.open.append(tag)
        if tag == "meta":
            self.metas.append(values)
        self.identities += [value for name, value in attrs if name == "id" and value]
        self.addresses += [value or "" for name, value in attrs if name in ADDRESSES]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        inside = self.open[-1] if self.open else ""
        {"script": self.scripts, "style": self.styles}.get(inside, self.words).append(data)
