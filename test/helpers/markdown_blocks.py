"""Code blocks of Markdown files, and what is to be run in them."""

import re
import shlex

NOT_RUN = re.compile(r"<!-- not run in tests: (.*) -->")


def marked_blocks(text, *languages):
    """(content, why it is not run or None) of each code block in some languages ("" for none).

    A comment on the line before a block says why: ``<!-- not run in tests: needs ROS 2 -->``.
    """
    found, language, lines, reason, before = [], None, [], None, ""
    for line in text.splitlines():
        if not line.startswith("```"):
            lines.append(line)
            before = line
        elif language is None:
            language, lines = line[3:].strip(), []
            mark = NOT_RUN.fullmatch(before)
            reason = mark[1] if mark else None
        else:
            found += [("\n".join(lines) + "\n", reason)] if language in languages else []
            language, before = None, ""
    return found


def blocks(text, *languages):
    """The content of code blocks in some languages ("" for none)."""
    return [content for content, _ in marked_blocks(text, *languages)]


def command_lines(block):
    """The commands of a block of a shell as words, those joined by && one by one; comments left out."""
    for line in block.replace("\\\n", " ").splitlines():
        for part in line.split(" && "):
            words = shlex.split(part, comments=True)
            if words:
                yield words
