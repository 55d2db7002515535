"""The tags by which a Go template writes reasoning and tool calls, guessed from its text as Ollama does.

From Ollama's `thinking/template.go` and `tools/template.go`. `root` is the parsed template.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ollama_compat.template.gotemplate import nodes


def thinking_tags(root: nodes.Node) -> tuple[str, str]:
    """First and last text around `.Thinking` in the range over `.Messages`; ("", "") when there are none.

    Where it stands several times, a later text wins.
    """
    opening = closing = ""
    for ancestors in _paths_to_thinking(root, ()):
        ranges = [node for node in ancestors if isinstance(node, nodes.Range)]
        around = [node for node in ancestors if isinstance(node, nodes.List)]
        if ranges and around and _uses_messages(ranges[-1]):
            first, last = around[-1].nodes[0], around[-1].nodes[-1]
            opening = first.value.strip() if isinstance(first, nodes.Text) else opening
            closing = last.value.strip() if isinstance(last, nodes.Text) else closing
    return opening, closing


def call_tag(root: nodes.Node) -> str:
    """The first text in the branch for `.ToolCalls`, up to its first brace; "{" when there is none."""
    branch = _find_branch((root,))
    text = None if branch is None else _first_text(branch.body.nodes)
    tag = "" if text is None else text.value.replace("\r\n", "\n").partition("{")[0].strip()
    return tag or "{"


def _paths_to_thinking(node: nodes.Node, ancestors: tuple[nodes.Node, ...]) -> Iterator[tuple[nodes.Node, ...]]:
    if isinstance(node, nodes.Field) and node.names[0] == "Thinking":
        yield ancestors
    for child in node.children():
        yield from _paths_to_thinking(child, (*ancestors, node))


def _uses_messages(node: nodes.Range) -> bool:
    return any(isinstance(part, nodes.Field) and part.names[0] == "Messages" for part in nodes.walk(node.pipe))


def _find_branch(found: Sequence[nodes.Node]) -> nodes.If | None:
    """The first `if` whose condition names `.ToolCalls`."""
    for node in found:
        if isinstance(node, nodes.If) and _names_calls(node):
            return node
        below = node.nodes if isinstance(node, nodes.List) else ()
        if isinstance(node, nodes.Branch):
            below = (node.body,) if node.otherwise is None else (node.body, node.otherwise)
        if (branch := _find_branch(below)) is not None:
            return branch
    return None


def _names_calls(node: nodes.If) -> bool:
    arguments = (argument for command in node.pipe.commands for argument in command.args)
    return any(isinstance(argument, nodes.Field) and "ToolCalls" in argument.names for argument in arguments)


def _first_text(found: Sequence[nodes.Node]) -> nodes.Text | None:
    """The first text that is not white space; none when something is printed before it."""
    for node in found:
        if isinstance(node, nodes.Text) and node.value.strip():
            return node
        if isinstance(node, nodes.Branch):
            return _first_text(node.body.nodes) or (_first_text(node.otherwise.nodes) if node.otherwise else None)
        if isinstance(node, nodes.Action):
            return None
    return None
