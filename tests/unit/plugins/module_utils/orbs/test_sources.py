# SPDX-License-Identifier: GPL-3.0-or-later
"""Orbs and what they import, from a registry that is asked as the vendor's command line asks it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.orbs import (
    Api,
    OrbError,
    index_text,
    parse_exact,
    read_index,
)
from ansible_collections.onprem.circleci_server.plugins.module_utils.orbs.sources import (
    Known,
    collect,
    images_of,
    imports_of,
    sha256_of,
)
from ansible_collections.onprem.circleci_server.tests.unit.helpers.orb_stand_in import OrbRegistry, serve_orbs

ECR = """version: 2.1
orbs:
  cli: circleci/aws-cli@5.1
  own:
    orbs: {tool: acme/tool@1.0.0}
    commands: {}
commands: {}
"""


@pytest.fixture
def cloud() -> Iterator[OrbRegistry]:
    with serve_orbs() as registry:
        registry.add("circleci/aws-cli@5.1.0", "version: 2.1\n")
        registry.add("circleci/aws-cli@5.1.3", "version: 2.1\ndescription: newest\n")
        registry.add("circleci/aws-cli@5.2.0", "version: 2.1\n")
        registry.add("acme/tool@1.0.0", "version: 2.1\n")
        registry.add("circleci/aws-ecr@9.5.0", ECR)
        yield registry


def run(cloud: OrbRegistry, *refs: str, known: Known | None = None) -> tuple[list[str], list[str]]:
    orbs, _sources, problems = collect(refs, Api(cloud.url, tries=1), known or Known())
    return [orb.ref for orb in orbs], problems


def test_orbs_come_with_what_they_import_in_an_order_for_publishing(cloud: OrbRegistry) -> None:
    orbs, sources, problems = collect(["circleci/aws-ecr@9.5.0"], Api(cloud.url), Known())
    assert problems == []
    assert [orb.ref for orb in orbs] == ["acme/tool@1.0.0", "circleci/aws-cli@5.1.3", "circleci/aws-ecr@9.5.0"]
    assert orbs[1].why == ("imported by circleci/aws-ecr@9.5.0",) and orbs[2].why == ("circleci_orbs",)
    assert orbs[2].imports == (("circleci/aws-cli@5.1", "circleci/aws-cli@5.1.3"), ("acme/tool@1.0.0", "acme/tool@1.0.0"))
    assert all(orb.sha256 == sha256_of(sources[orb.ref]) for orb in orbs)
    # One question for each orb, nothing else and nobody's token.
    assert [name for name, _given in cloud.asked] == ["source"] * 3


def test_an_orb_asked_for_and_imported_is_fetched_once(cloud: OrbRegistry) -> None:
    orbs, _sources, _problems = collect(["acme/tool@1.0.0", "circleci/aws-ecr@9.5.0"], Api(cloud.url), Known())
    assert len(cloud.asked) == 3
    assert {orb.ref: orb.why for orb in orbs}["acme/tool@1.0.0"] == ("circleci_orbs", "imported by circleci/aws-ecr@9.5.0")


def test_the_same_orbs_give_the_same_index_and_it_is_read_back(cloud: OrbRegistry) -> None:
    orbs, _sources, _problems = collect(["circleci/aws-ecr@9.5.0", "acme/tool@1.0.0"], Api(cloud.url), Known())
    again, _sources, _problems = collect(["acme/tool@1.0.0", "circleci/aws-ecr@9.5.0"], Api(cloud.url), Known())
    assert index_text(orbs) == index_text(again) and read_index(index_text(orbs), "orbs.json") == orbs


def test_all_problems_come_together(cloud: OrbRegistry) -> None:
    cloud.add("acme/lost@1.0.0", "version: 2.1\norbs: {gone: acme/gone@2.0.0, draft: acme/tool@dev:first}\n")
    _orbs, problems = run(cloud, "acme/nothing@1.0.0", "circleci/node@5", "acme/lost@1.0.0", "acme/tool@1.0.0")
    text = "\n".join(problems)
    assert len(problems) == 4 and all(problem.startswith("circleci_orbs: ") for problem in problems)
    assert "acme/nothing@1.0.0 is not in the registry of CircleCI" in text
    assert "'circleci/node@5' is no exact version of an orb; write namespace/orb@major.minor.patch" in text
    assert "acme/gone@2.0.0 is not in the registry of CircleCI" in text and "imported by acme/lost@1.0.0" in text
    assert "acme/lost@1.0.0 imports acme/tool@dev:first: a development version" in text


@pytest.mark.parametrize("ref", ["circleci/node", "circleci/node@5.2", "circleci/node@volatile", "circleci/node@dev:x", "node@1.0.0", "a/b/c@1.0.0", "a/b@1.0.0.0", "a/b@01.0.0", "a/../b@1.0.0"])
def test_only_exact_versions_are_taken(ref: str) -> None:
    with pytest.raises(OrbError, match="is no exact version"):
        parse_exact(ref)


def test_an_unreachable_api_is_said_once() -> None:
    _orbs, _sources, problems = collect(["a/b@1.0.0", "a/c@1.0.0"], Api("http://127.0.0.1:1", tries=1), Known())
    assert len(problems) == 1 and "http://127.0.0.1:1/graphql-unstable cannot be reached" in problems[0] and "connected host" in problems[0]


@pytest.mark.parametrize(("status", "said"), [(302, "status 302"), (404, "is this the address of CircleCI"), (403, "refuses the token")])
def test_answers_that_are_none_are_told(cloud: OrbRegistry, status: int, said: str) -> None:
    cloud.broken = [status]
    assert said in run(cloud, "acme/tool@1.0.0")[1][0]


def test_a_busy_api_is_asked_again(cloud: OrbRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    cloud.broken = [503, 429]
    orbs, _sources, problems = collect(["acme/tool@1.0.0"], Api(cloud.url), Known())
    assert [orb.ref for orb in orbs] == ["acme/tool@1.0.0"] and problems == []


def test_a_version_with_another_content_than_the_lock_pins_is_refused(cloud: OrbRegistry) -> None:
    known = Known(digests={"acme/tool@1.0.0": "0" * 64})
    _orbs, problems = run(cloud, "acme/tool@1.0.0", known=known)
    assert len(problems) == 1 and "a published version never changes" in problems[0] and "000000" in problems[0]


def test_what_the_lock_knows_is_not_asked_again(cloud: OrbRegistry) -> None:
    orbs, sources, _problems = collect(["circleci/aws-ecr@9.5.0"], Api(cloud.url), Known())
    cloud.add("circleci/aws-cli@5.1.4", "version: 2.1\n")
    cloud.asked.clear()
    known = Known({orb.ref: orb.sha256 for orb in orbs}, sources, {"circleci/aws-cli@5.1": "circleci/aws-cli@5.1.3"})
    again, _sources, _problems = collect(["circleci/aws-ecr@9.5.0"], Api("http://127.0.0.1:1", tries=1), known)
    assert again == orbs and cloud.asked == []


def test_orbs_that_import_each_other_are_refused(cloud: OrbRegistry) -> None:
    cloud.add("acme/one@1.0.0", "version: 2.1\norbs: {two: acme/two@1}\n")
    cloud.add("acme/two@1.0.0", "version: 2.1\norbs: {one: acme/one@1}\n")
    _orbs, problems = run(cloud, "acme/one@1.0.0")
    assert problems == ["circleci_orbs: these orbs import each other, so that none can be published first: acme/one@1.0.0 → acme/two@1.0.0 → acme/one@1.0.0"]


def test_a_source_that_is_no_yaml_is_told(cloud: OrbRegistry) -> None:
    cloud.add("acme/broken@1.0.0", "version: [2.1\n")
    assert "the source of acme/broken@1.0.0 is no valid YAML" in run(cloud, "acme/broken@1.0.0")[1][0]


def test_imports_of_inline_orbs_count() -> None:
    assert imports_of(ECR, "x") == ["circleci/aws-cli@5.1", "acme/tool@1.0.0"]
    assert imports_of("version: 2.1\norbs: 5\n", "x") == [] and imports_of("- text\n", "x") == []


def test_images_of_executors_with_the_defaults_of_their_parameters() -> None:
    source = """version: 2.1
executors:
  default:
    parameters: {tag: {type: string, default: lts}, resource: {type: string}}
    docker: [{image: "cimg/node:<< parameters.tag >>"}, {image: cimg/redis:7.2}]
  chosen:
    parameters: {tag: {type: string}}
    docker: [{image: "cimg/node:<<parameters.tag>>"}]
  vm: {machine: true}
jobs:
  test: {docker: [{image: cimg/base:stable}], steps: []}
  run: {executor: default, steps: []}
"""
    assert images_of(source, "x") == ["cimg/node:lts", "cimg/redis:7.2", "cimg/base:stable"]


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        '{"format": "another", "orbs": []}',
        '{"format": "onprem.circleci_server/orbs/1", "orbs": [{}]}',
        '{"format": "onprem.circleci_server/orbs/1", "orbs": [{"orb": "a/../../etc", "version": "1.0.0", "sha256": "", "imports": [], "why": []}]}',
        '{"format": "onprem.circleci_server/orbs/1", "orbs": [{"orb": "a/b", "version": "1.0.0", "sha256": "x", "imports": [], "why": []}]}',
    ],
)
def test_a_wrong_index_is_refused(text: str) -> None:
    with pytest.raises(OrbError, match=r"orbs\.json"):
        read_index(text, "orbs.json")
