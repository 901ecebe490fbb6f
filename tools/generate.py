#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write what is derived from arguments.yml (play argument specs, defaults of role site, AWX surveys, the reference page), from ownership.yml,
from the options of the port model (a table in docs/how-to/firewall.md), and from the evidence of scenarios (docs/reference/scenarios.md).

``tools/generate.py`` writes, ``tools/generate.py --check`` names the files that differ and ends with 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import re
import sys
import typing as t
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools import scenario_table  # noqa: E402 - the path is set above

HEADER = "# SPDX-License-Identifier: GPL-3.0-or-later\n# Generated from arguments.yml by `make generate`; edit that file.\n"
VERBS = {
    "preflight": "Check everything that the site must bring; change nothing",
    "plan": "Write the change-request document; change nothing",
    "chart_check": "Compare the catalog with the licensed chart; change no site",
    "bundle": "Fetch images, chart, agents, packages and binaries into a bundle, on the connected side",
    "cloud_prepare": "Set what the site needs of its cloud, where its API can be reached",
    "secrets": "Make the secrets of the site once, in its cluster",
    "install": "Install CircleCI Server on the cut-off site",
    "upgrade": "Go one release further, with a restore point and a way back",
    "rollback": "Go back to the release of a restore point",
    "restore_point": "Take a restore point of the running site",
    "restart": "Restart services, or the application layer",
    "scale": "Take the application layer down or up",
    "verify": "Prove by connecting that the site works",
    "report": "Write the report about the site",
    "uninstall": "Take the release and what the collection put on the hosts away",
}


def _load_module(name: str) -> t.Any:
    """A module below plugin_utils, or a package that imports nothing from outside itself."""
    path = ROOT / "plugins/plugin_utils" / f"{name}.py"
    if not path.exists():
        path = path.with_suffix("") / "__init__.py"
    known = path.parent.name if path.name == "__init__.py" else path.stem
    spec = importlib.util.spec_from_file_location(known, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[known] = module
    spec.loader.exec_module(module)
    return module


def _dump(document: t.Any) -> str:
    class Dumper(yaml.SafeDumper):
        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
            super().increase_indent(flow, False)

    return yaml.dump(document, Dumper=Dumper, sort_keys=False, width=150, allow_unicode=True, explicit_start=True)


def play_spec(verb: str, summary: str, arguments: dict[str, t.Any]) -> str:
    """The play's argument spec for *verb*, in the form that ansible-core 2.20 and later reads."""
    options: dict[str, t.Any] = {}
    for argument in arguments.values():
        if verb not in argument.verbs:
            continue
        option: dict[str, t.Any] = {"type": argument.type, "description": [argument.description]}
        if argument.elements:
            option["elements"] = argument.elements
        if argument.choices:
            option["choices"] = list(argument.choices)
        if verb in argument.required and not argument.unless:
            option["required"] = True
        elif argument.has_default:
            option["default"] = argument.default
        if argument.secret:
            option["no_log"] = True
        options[argument.name] = option
    return HEADER + _dump({"short_description": summary, "argument_specs": {verb: {"short_description": summary, "options": options}}})


def survey(verb: str, summary: str, arguments: dict[str, t.Any]) -> str:
    """An AWX survey that asks for the required variables of *verb* that are not secrets of the inventory."""
    kinds = {"int": "integer", "bool": "multiplechoice"}
    questions = []
    for argument in arguments.values():
        if verb not in argument.required or argument.type in ("list", "dict"):
            continue
        question = {
            "question_name": argument.name,
            "question_description": argument.plain_description,
            "required": not argument.unless,
            "type": "password" if argument.secret else "multiplechoice" if argument.choices else kinds.get(argument.type, "text"),
            "variable": argument.name,
            "default": "",
        }
        if argument.choices:
            question["choices"] = list(argument.choices)
        questions.append(question)
    return json.dumps({"name": f"onprem.circleci_server.{verb}", "description": summary, "spec": questions}, indent=2, ensure_ascii=False) + "\n"


def reference(arguments: dict[str, t.Any]) -> str:
    """docs/reference/arguments.md."""
    lines = [
        "<!-- Generated from arguments.yml by `make generate`; edit that file. -->",
        "# Site variables",
        "",
        "One table for all verbs. **Needed by** names the verbs that refuse to run without the variable; a verb ignores what it does not read.",
        "Unknown `circleci_*` names are refused. Options of single roles are in the README of each role.",
        "",
        "| variable | type | default | needed by | what it is |",
        "|---|---|---|---|---|",
    ]
    for argument in arguments.values():
        kind = f"{argument.type} of {argument.elements}" if argument.elements else argument.type
        if argument.choices:
            kind = " \\| ".join(f"`{choice}`" for choice in argument.choices)
        default = f"`{json.dumps(argument.default)}`" if argument.has_default else ""
        text = re.sub(r"\b[VCO]\(([^)]*)\)", r"`\1`", argument.description)
        secret = " Secret." if argument.secret else ""
        example = f" Example: `{argument.example}`." if argument.example else ""
        lines.append(f"| `{argument.name}` | {kind} | {default} | {', '.join(argument.required)} | {text}{example}{secret} |")
    return "\n".join(lines) + "\n"


def port_options(options: t.Any) -> str:
    """The names of circleci_ports as a table."""
    lines = ["| name | form | default | what it is |", "|---|---|---|---|"]
    for field in dataclasses.fields(options):
        kind = str(field.type)
        form = "list of ports" if "int, ..." in kind else "list of networks" if "tuple" in kind else {"int": "port", "bool": "true or false"}[kind]
        empty = field.default in ((), None)
        default = "" if empty else "`" + json.dumps(field.default) + "`"
        lines.append(f"| `{field.name}` | {form} | {default} | {field.metadata['text']} |")
    return "\n".join(lines) + "\n"


def between_markers(path: Path, name: str, table: str) -> str:
    """The page with the text between its two markers replaced."""
    begin, end = f"<!-- {name}: written by `make generate` -->\n", f"<!-- end of {name} -->\n"
    head, _begin, rest = path.read_text(encoding="utf-8").partition(begin)
    _old, _end, tail = rest.partition(end)
    assert tail or rest.endswith(end), f"{path} lacks the markers of {name}"
    return head + begin + table + end + tail


def outputs() -> dict[Path, str]:
    """Every generated file with the text that it must have."""
    arguments = _load_module("arguments").load_arguments(ROOT)
    files = {ROOT / f"playbooks/{verb}.meta.yml": play_spec(verb, summary, arguments) for verb, summary in VERBS.items()}
    files |= {ROOT / f"docs/reference/awx/{verb}.survey.json": survey(verb, summary, arguments) for verb, summary in VERBS.items()}
    defaults = {argument.name: argument.default for argument in arguments.values() if argument.has_default}
    files[ROOT / "roles/site/defaults/main.yml"] = HEADER + _dump(defaults)
    files[ROOT / "docs/reference/arguments.md"] = reference(arguments)
    ownership = _load_module("site_plan/ownership")
    files[ROOT / "docs/reference/ownership.md"] = ownership.reference(ownership.load_ownership())
    files[ROOT / "docs/reference/scenarios.md"] = scenario_table.page()
    page = ROOT / "docs/how-to/firewall.md"
    files[page] = between_markers(page, "names of circleci_ports", port_options(_load_module("port_model").Options))
    return files


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, end with 1 when a file differs")
    check = parser.parse_args().check
    stale = []
    for path, text in outputs().items():
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(path.relative_to(ROOT))
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    for path in stale:
        sys.stdout.write(f"{'differs' if check else 'written'}: {path}\n")
    return 1 if check and stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
