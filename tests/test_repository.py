"""Files around the package agree with it: the workflow, the citation, forms, hooks."""

import tomllib
from pathlib import Path

import pytest
import yaml

import audiotrain

ROOT = Path(__file__).resolve().parents[1]


def read(name: str):
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_workflow_runs_ci_on_each_python_and_builds_the_wheel():
    jobs = read(".github/workflows/ci.yml")["jobs"]
    matrix = jobs["check"]["strategy"]["matrix"]
    assert matrix["python"][0] == project()["requires-python"].removeprefix(">=")
    assert {name.split("-")[0] for name in matrix["os"]} == {"ubuntu", "macos"}
    assert "bash .ci/run" in [step.get("run") for step in jobs["check"]["steps"]]
    assert any("python -m build" in step.get("run", "") for step in jobs["wheel"]["steps"])
    assert (ROOT / ".ci/run").is_file()


def test_versions_and_licences_are_the_same_everywhere():
    citation = read("CITATION.cff")
    assert citation["version"] == project()["version"] == audiotrain.__version__
    assert citation["license"] == project()["license"]


def test_hooks_call_tools_that_the_tests_extra_brings():
    extra = " ".join(project()["optional-dependencies"]["test"])
    hooks = [hook for repo in read(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    assert len(hooks) > 1
    for hook in hooks:
        assert hook["entry"].split()[0] in extra, hook["id"]


@pytest.mark.parametrize("form", ["bug", "feature"])
def test_forms_have_what_github_requires(form):
    content = read(f".github/ISSUE_TEMPLATE/{form}.yml")
    assert {"name", "description", "body"} <= set(content)
    fields = content["body"]
    assert len({field["id"] for field in fields}) == len(fields) > 2
    for field in fields:
        assert field["type"] in ("textarea", "dropdown", "input", "checkboxes")
        assert field["attributes"]["label"]
        assert (field["type"] == "dropdown") == ("options" in field["attributes"])
