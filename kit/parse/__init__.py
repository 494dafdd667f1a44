"""Pure parsers: text of a tool to a dataclass, or a ParseError that quotes the line."""
