"""The image repository is found without validating the configuration, at the place the configuration says."""

from __future__ import annotations

from pathlib import Path

import pytest

from koguma import config, places


@pytest.mark.parametrize(
    ("file", "environ"),
    [
        ("", {}),
        ('state_dir = "/srv/site"\n', {}),
        ('state_dir = "/srv/site"\n[images]\nrepository = "/srv/images"\n', {}),
        ('[images]\nrepository = "relative"\n', {}),
        ('state_dir = "/srv/site"\n', {"KOGUMA_STATE_DIR": "/srv/other"}),
        ('[images]\nrepository = "/srv/images"\n', {"KOGUMA_STATE_DIR": "/srv/other"}),
        ('[images]\nrepository = "/srv/images"\n', {"KOGUMA_IMAGES_REPOSITORY": "/srv/mine"}),
    ],
)
def test_the_repository_is_where_the_configuration_says(tmp_path: Path, file: str, environ: dict[str, str]) -> None:
    path = tmp_path / "koguma.toml"
    path.write_text(file)
    environ = {**environ, "KOGUMA_CONFIG": str(path)}
    assert places.repository(environ) == config.load(environ=environ).repository


@pytest.mark.parametrize(
    "file",
    ['state_dir = "relative"\n', "state_dir = 7\n", "images = 7\n", "[images]\nrepository = 7\n", "state_dir = "],
)
def test_a_mistake_is_left_to_the_configuration(tmp_path: Path, file: str) -> None:
    path = tmp_path / "koguma.toml"
    path.write_text(file)
    environ = {"KOGUMA_CONFIG": str(path)}
    assert places.repository(environ) is None
    with pytest.raises(config.ConfigError):
        config.load(environ=environ)


def test_a_file_that_cannot_be_read_is_left_to_the_configuration(tmp_path: Path) -> None:
    assert places.repository({"KOGUMA_CONFIG": str(tmp_path / "none.toml")}) is None
