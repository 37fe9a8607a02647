from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from koguma.images.aptsources import Source, machine_sources, mirror_lines
from koguma.images.errors import RecipeError
from koguma.images.recipe import RecipeFile, load_recipe, parse_recipe

MAIN = Source("http://mirror.example/debian", ("bookworm", "bookworm-updates"), ("main",))
SECURITY = Source("http://mirror.example/debian-security", ("bookworm-security",), ("main",))
OTHER = Source("http://other.example/apt", ("bookworm",), ("main",))


def test_a_recipe_says_what_to_build(tmp_path: Path) -> None:
    (tmp_path / "motd").write_bytes(b"from a file")
    (tmp_path / "r.toml").write_text(
        """
        suite = "bookworm"
        packages = ["vim", "libc6:amd64"]
        commands = ["true"]
        hostname = "compute"
        node = true
        exclude = ["/usr/share/doc/*"]
        [[files]]
        path = "/etc/motd"
        source = "motd"
        mode = "0640"
        [[files]]
        path = "/etc/issue"
        content = "hello"
        """
    )

    recipe = load_recipe(tmp_path / "r.toml")

    assert (recipe.suite, recipe.packages, recipe.components) == ("bookworm", ("vim", "libc6:amd64"), ("main",))
    assert (recipe.commands, recipe.hostname, recipe.node, recipe.variant) == (("true",), "compute", True, "minbase")
    assert recipe.exclude == ("/usr/share/doc/*",)
    assert recipe.files == (RecipeFile("/etc/motd", b"from a file", 0o640), RecipeFile("/etc/issue", b"hello", 0o644))


def test_the_digest_of_a_recipe_covers_the_files_it_refers_to(tmp_path: Path) -> None:
    document = {"suite": "bookworm", "files": [{"path": "/etc/motd", "source": "motd"}]}
    (tmp_path / "motd").write_text("one")
    before = parse_recipe(document, tmp_path).digest()
    assert parse_recipe(document, tmp_path).digest() == before
    (tmp_path / "motd").write_text("two")

    assert parse_recipe(document, tmp_path).digest() != before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"suite": None}, "suite must match"),
        ({"suite": "../x"}, "suite must match"),
        ({"pakages": []}, "got pakages"),
        ({"packages": "vim"}, "packages must be a list"),
        ({"packages": ["vim;reboot"]}, "packages must match"),
        ({"packages": ["--simulate"]}, "packages must match"),
        ({"variant": "huge"}, "variant must be one of"),
        ({"hostname": "a b"}, "hostname must match"),
        ({"node": "yes"}, "node must be true or false"),
        ({"commands": [""]}, "commands must be a list"),
        ({"exclude": ["usr/share/doc"]}, "exclude must match"),
        ({"exclude": ["/a b"]}, "exclude must match"),
        ({"files": {}}, "files must be tables"),
        ({"files": [{"path": "etc/motd", "content": ""}]}, "must be absolute"),
        ({"files": [{"path": "/../etc/motd", "content": ""}]}, "must be absolute"),
        ({"files": [{"path": "/etc/motd"}]}, "either content or source"),
        ({"files": [{"path": "/etc/motd", "content": "", "source": ""}]}, "either content or source"),
        ({"files": [{"path": "/etc/motd", "content": "", "mode": "rw"}]}, "mode of file"),
        ({"files": [{"path": "/etc/motd", "source": "missing"}]}, "source must be readable"),
    ],
)
def test_a_recipe_that_breaks_a_rule_is_refused_with_the_rule(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_recipe({"suite": "bookworm"} | changes, tmp_path)


def test_a_recipe_that_is_no_toml_is_named(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("suite = ")

    with pytest.raises(RecipeError, match=r"must be TOML.*r\.toml"):
        load_recipe(tmp_path / "r.toml")


def test_the_recipes_that_come_with_koguma_are_valid() -> None:
    recipes = (Path(__file__).parents[3] / "recipes").glob("*.toml")

    suites = {"compute": "bookworm", "minimal": "trixie", "server": "bookworm"}
    assert {path.stem: load_recipe(path).suite for path in recipes} == suites


def test_the_mirror_is_the_machines_own() -> None:
    assert mirror_lines("bookworm", ("main", "contrib"), [OTHER, MAIN, SECURITY]) == [
        "deb http://mirror.example/debian bookworm main contrib",
        "deb http://mirror.example/debian bookworm-updates main contrib",
        "deb http://mirror.example/debian-security bookworm-security main contrib",
    ]


def test_another_suite_comes_from_the_same_mirror() -> None:
    assert mirror_lines("trixie", ("main",), [MAIN, SECURITY])[0] == "deb http://mirror.example/debian trixie main"
    assert mirror_lines("sid", ("main",), [MAIN, SECURITY]) == ["deb http://mirror.example/debian sid main"]


def test_a_machine_without_debian_sources_leaves_the_mirror_to_the_tool() -> None:
    assert mirror_lines("bookworm", ("main",), [OTHER]) == []


def test_sources_of_both_formats_are_read(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(
        "# deb http://no.example/debian bookworm main\n"
        "deb [arch=amd64 signed-by=/k.gpg] http://one.example/debian bookworm main contrib # note\n"
        "deb-src http://one.example/debian bookworm main\n"
    )
    (tmp_path / "sources.list.d" / "debian.sources").write_text(
        "Types: deb deb-src\n# a comment\n"
        "URIs: http://two.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\n\n"
        "Types: deb\nURIs: http://off.example/debian\nSuites: bookworm\nComponents: main\nEnabled: no\n"
    )

    assert machine_sources(tmp_path) == [
        Source("http://one.example/debian", ("bookworm",), ("main", "contrib")),
        Source("http://two.example/debian", ("bookworm", "bookworm-updates"), ("main",)),
    ]
