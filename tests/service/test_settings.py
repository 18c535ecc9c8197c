"""Settings: where they come from, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from crosstune.service.settings import PREFIX, Settings, SettingsRefused, default_data_dir, is_loopback, read_settings

DOCS = Path(__file__).parents[2] / "docs" / "settings.md"


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(PREFIX + name.upper(), raising=False)
    monkeypatch.delenv("CROSSTUNE_CONFIG", raising=False)


def test_every_setting_is_documented_with_its_default_and_nothing_else_is() -> None:
    rows = dict(re.findall(r"^\| `CROSSTUNE_(\w+)` \| ([^|]*) \|", DOCS.read_text(), re.MULTILINE))
    assert set(rows) == {name.upper() for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        if isinstance(field.default, bool | int | float):
            shown = rows[name.upper()].strip("` ")
            assert float({"true": "1", "false": "0"}.get(shown, shown)) == float(field.default), name


def test_the_default_database_is_sqlite_in_the_data_folder(tmp_path: Path) -> None:
    settings = read_settings(data_dir=tmp_path)
    assert settings.database_url == f"sqlite:///{tmp_path}/crosstune.db"


def test_the_data_folder_is_the_platforms_usual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", "/x")
    assert default_data_dir() == Path("/x/crosstune")


def test_the_environment_wins_over_the_file_and_the_file_over_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "crosstune.toml"
    file.write_text('port = 9000\nround_trials = 16\nallowed_hosts = ["a.example"]\n')
    monkeypatch.setenv("CROSSTUNE_CONFIG", str(file))
    monkeypatch.setenv("CROSSTUNE_PORT", "9100")
    settings = read_settings()
    assert (settings.port, settings.round_trials, settings.allowed_hosts) == (9100, 16, ("a.example",))
    assert read_settings(port=9200).port == 9200


def test_a_list_in_the_environment_is_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSTUNE_ALLOWED_HOSTS", "localhost, Tuner.Example")
    assert read_settings().allowed_hosts == ("localhost", "tuner.example")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.com", "", "127.0.0.1.evil.example"])
def test_listening_beyond_loopback_is_refused_while_there_are_no_keys(host: str) -> None:
    with pytest.raises(SettingsRefused, match="CROSSTUNE_HOST"):
        read_settings(host=host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "[::1]", "localhost", "::ffff:127.0.0.1"])
def test_loopback_has_many_names(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    ("name", "value"),
    [("port", "70000"), ("lease_s", "0"), ("builders", "0"), ("redis_url", "http://x"), ("log_level", "loud")],
)
def test_a_value_that_cannot_be_used_is_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PREFIX + name.upper(), value)
    with pytest.raises(SettingsRefused, match=name.upper()):
        read_settings()


@pytest.mark.parametrize("content", ["prot = 1\n", "port = = 1\n"])
def test_a_file_with_an_unknown_name_or_no_toml_is_refused(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "crosstune.toml"
    file.write_text(content)
    monkeypatch.setenv("CROSSTUNE_CONFIG", str(file))
    with pytest.raises(SettingsRefused):
        read_settings()


def test_a_file_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSTUNE_CONFIG", "/nowhere/crosstune.toml")
    with pytest.raises(SettingsRefused, match="nowhere"):
        read_settings()
