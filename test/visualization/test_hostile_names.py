"""Names that are HTML or JavaScript are text in every page."""

import json
import re

from semalign3d_core.pages.page import page

HOSTILE = "<!--<script>", "</script><script>alert(1)</script>", "\u2028", "&lt;", '"', "'"


def test_data_of_a_page_ends_no_script():
    text = page("<b>", "inspect", {"names": list(HOSTILE), "<k>": 1})
    data = re.search(r"const DATA = (.*);", text).group(1)
    assert "<" not in data and json.loads(data)["names"] == list(HOSTILE)
    assert text.count("<script>") == 1 and "<!--" not in text and "&lt;b&gt;" in text
